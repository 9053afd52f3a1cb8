"""The policy-value network: a small residual multi-layer perceptron in numpy.

    h = relu(x W0 + b0)            x: 210 features, 0 or 1
    h = h + relu(h Wk + bk)        for each further layer k
    logits, v = h Wh + bh          7 move logits and one number; value = tanh(v)

The value is the expected result for the side to move, from -1 (lost) to 1 (won).
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gamekeeper.client import ClientError
from gamekeeper.demo.board import COLUMNS, FEATURES, PLANES, ROWS, Boards, Bytes, Prospects

Floats = npt.NDArray[np.float32]
Weights = dict[str, Floats]

OUTPUTS = COLUMNS + 1
WIDTH_MAX = 1024
LAYERS_MAX = 16
MODEL_BYTES_MAX = 64 * 1024 * 1024
_BLOCK = 16


class ModelError(ClientError):
    """A model file does not hold a network this program can use. It is never replaced by another one."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"Model {path.name} does not load: {reason}.",
            "give the job a model made by this line's own stages; no other network is used in its place.",
        )


def new_weights(rng: np.random.Generator, width: int, layers: int) -> Weights:
    """Random weights of a founding model: He initialisation, with small heads (flat policy, values near 0)."""
    if not (1 <= width <= WIDTH_MAX and 1 <= layers <= LAYERS_MAX):
        raise ClientError(
            f"A network of {layers} layers of width {width} cannot be built.",
            f"choose 1 to {LAYERS_MAX} layers and a width of 1 to {WIDTH_MAX}.",
        )
    weights: Weights = {}
    for layer in range(layers):
        inputs = FEATURES if layer == 0 else width
        scale = np.sqrt(2.0 / inputs)
        weights[f"w{layer}"] = (rng.standard_normal((inputs, width)) * scale).astype(np.float32)
        weights[f"b{layer}"] = np.zeros(width, np.float32)
    weights["wh"] = (rng.standard_normal((width, OUTPUTS)) * (0.3 / np.sqrt(width))).astype(np.float32)
    weights["bh"] = np.zeros(OUTPUTS, np.float32)
    return weights


def layers_of(weights: Mapping[str, Floats]) -> int:
    """The number of hidden layers."""
    return len(weights) // 2 - 1


def architecture(weights: Mapping[str, Floats]) -> str:
    """The shape of the network in words, such as `mlp-210-128x3`."""
    return f"mlp-{FEATURES}-{weights['wh'].shape[0]}x{layers_of(weights)}"


def count_weights(weights: Mapping[str, Floats]) -> int:
    """The number of single weights."""
    return sum(array.size for array in weights.values())


def save(weights: Mapping[str, Floats], file: BinaryIO) -> None:
    """Write the weights as an NPZ archive; the same weights always give the same bytes."""
    np.savez(file, **{name: weights[name] for name in sorted(weights)})  # type: ignore[arg-type]


def read_arrays(path: Path, bytes_max: int) -> dict[str, npt.NDArray[Any]]:
    """All arrays of an NPZ archive that unpacks to at most `bytes_max`. Raises ValueError on anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size > bytes_max:
            raise ValueError(f"it unpacks to {size} bytes, more than {bytes_max}")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise ValueError(f"it is not a whole archive of arrays ({error})") from error


def load(path: Path) -> Weights:
    """Read and check weights: names, types, shapes and finite values. Raises ModelError on any doubt."""
    try:
        arrays = read_arrays(path, MODEL_BYTES_MAX)
    except ValueError as error:
        raise ModelError(path, str(error)) from error
    _check(path, arrays)
    return arrays


def _check(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    layers = len(arrays) // 2 - 1
    if not 1 <= layers <= LAYERS_MAX or "bh" not in arrays or arrays["bh"].shape != (OUTPUTS,):
        raise ModelError(path, f"it holds the arrays {sorted(arrays)[:8]}, which is no network of this game")
    width = arrays["wh"].shape[0] if "wh" in arrays and arrays["wh"].ndim == 2 else 0
    expected: dict[str, tuple[int, ...]] = {"wh": (width, OUTPUTS), "bh": (OUTPUTS,)}
    for layer in range(layers):
        expected[f"w{layer}"] = (FEATURES if layer == 0 else width, width)
        expected[f"b{layer}"] = (width,)
    shapes = {name: array.shape for name, array in arrays.items()}
    if shapes != expected or not 1 <= width <= WIDTH_MAX:
        raise ModelError(path, f"its arrays have the shapes {shapes}, expected {expected}")
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise ModelError(path, f"array {name} is {array.dtype}, expected float32")
        if not np.isfinite(array).all():
            raise ModelError(path, f"array {name} holds values that are not finite")


class Net:
    """The network made ready to be asked about many positions.

    Rows are computed in blocks of a fixed size: the answer about a position is then the same bits whatever else is
    in the batch, so that a game depends on its seed alone and a network playing itself scores exactly even.
    """

    def __init__(self, weights: Mapping[str, Floats]) -> None:
        self.weights = dict(weights)
        width = weights["wh"].shape[0]
        padded = np.zeros((PLANES, ROWS, COLUMNS + 1, width), np.float32)
        padded[:, :, :COLUMNS] = weights["w0"].reshape(PLANES, ROWS, COLUMNS, width)
        matrices = [padded.reshape(-1, width)] + [weights[f"w{k}"] for k in range(1, layers_of(weights))]
        self._layers = [(np.ascontiguousarray(w), weights[f"b{k}"]) for k, w in enumerate(matrices)]
        self._head = np.ascontiguousarray(weights["wh"])
        self._head_bias = weights["bh"]

    def ask(self, prospects: Prospects) -> tuple[Floats, Floats]:
        """(logits [games, 7], values [games]) for positions; float32."""
        return self._forward(prospects.packed().reshape(len(prospects.own), -1))

    def ask_positions(self, own: Boards, mask: Boards) -> tuple[Floats, Floats]:
        """As `ask`, from bare positions."""
        return self.ask(Prospects(own, mask))

    def _forward(self, bits: Bytes) -> tuple[Floats, Floats]:
        games = len(bits)
        blocks = -(-games // _BLOCK)
        x = np.zeros((blocks * _BLOCK, bits.shape[1]), np.float32)
        x[:games] = bits
        hidden = x.reshape(blocks, _BLOCK, -1)
        for number, (matrix, bias) in enumerate(self._layers):
            out = hidden @ matrix
            out += bias
            np.maximum(out, 0.0, out=out)
            if number > 0:
                out += hidden
            hidden = out
        outputs = (hidden @ self._head + self._head_bias).reshape(blocks * _BLOCK, OUTPUTS)[:games]
        return outputs[:, :COLUMNS], np.tanh(outputs[:, COLUMNS])
