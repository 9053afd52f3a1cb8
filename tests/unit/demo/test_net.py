"""A model file either holds a usable network or is refused; the network's answers do not depend on the batch."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gamekeeper.client import ClientError
from gamekeeper.demo import board, net
from gamekeeper.demo.net import ModelError, Net, Weights


def fresh(seed: int = 1, width: int = 12, layers: int = 2) -> Weights:
    return net.new_weights(np.random.default_rng(seed), width, layers)


def stored(weights: Weights) -> bytes:
    file = io.BytesIO()
    net.save(weights, file)
    return file.getvalue()


@pytest.mark.parametrize(("width", "layers"), [(1, 1), (12, 2), (40, 4)])
def test_saved_weights_come_back(tmp_path: Path, width: int, layers: int) -> None:
    """A weight lost or renamed on the way would make the champion another player."""
    weights = fresh(3, width, layers)
    path = tmp_path / "m.npz"
    path.write_bytes(stored(weights))
    again = net.load(path)
    assert again.keys() == weights.keys()
    assert all(np.array_equal(again[name], weights[name]) for name in weights)
    assert net.architecture(again) == f"mlp-210-{width}x{layers}"
    assert (
        net.count_weights(again)
        == 210 * width + (layers - 1) * width * width + layers * width + 8 * width + 8
    )


def test_same_weights_same_bytes() -> None:
    """Bytes that differ for equal weights would give one model two identities."""
    assert stored(fresh(7)) == stored(fresh(7))
    assert stored(fresh(7)) != stored(fresh(8))


def without(weights: Weights, name: str) -> Weights:
    return {key: array for key, array in weights.items() if key != name}


BROKEN: dict[str, Callable[[Weights], dict[str, np.ndarray]]] = {
    "missing": lambda w: dict(without(w, "b1")),
    "extra": lambda w: {**w, "zz": np.zeros(3, np.float32)},
    "renamed": lambda w: {**without(w, "w1"), "w9": w["w1"]},
    "shape": lambda w: {**w, "w0": w["w0"][:-1]},
    "width": lambda w: {**w, "wh": w["wh"][:-1]},
    "outputs": lambda w: {**w, "bh": w["bh"][:-1]},
    "type": lambda w: {**w, "b0": w["b0"].astype(np.float64)},
    "not finite": lambda w: {**w, "b0": np.full_like(w["b0"], np.nan)},
    "empty": lambda w: {},
}


@pytest.mark.parametrize("fault", sorted(BROKEN))
def test_broken_weights_are_refused(tmp_path: Path, fault: str) -> None:
    """A net that loads with a wrong array plays wrongly and looks healthy."""
    path = tmp_path / "m.npz"
    np.savez(path, **BROKEN[fault](fresh()))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="does not load"):
        net.load(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"hello", stored(fresh())[:-40], stored(fresh())[40:]])
def test_bytes_that_are_no_archive_are_refused(tmp_path: Path, content: bytes) -> None:
    """A cut-off download must fail the job with a reason, not with a traceback."""
    path = tmp_path / "m.npz"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="does not load"):
        net.load(path)


def test_pickled_objects_are_never_unpacked(tmp_path: Path) -> None:
    """Unpacking a pickle from a model file would run its author's code."""
    path = tmp_path / "m.npz"
    np.savez(path, w0=np.array([object()], dtype=object))
    with pytest.raises(ModelError, match="does not load"):
        net.load(path)


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    """A small file of zeros that unpacks to gigabytes would exhaust the machine's memory."""
    path = tmp_path / "m.npz"
    np.savez_compressed(path, wh=np.zeros(net.MODEL_BYTES_MAX // 4 + 1, np.float32))
    with pytest.raises(ModelError, match="unpacks to"):
        net.load(path)


@pytest.mark.parametrize(
    ("width", "layers"), [(0, 2), (8, 0), (net.WIDTH_MAX + 1, 1), (8, net.LAYERS_MAX + 1)]
)
def test_impossible_sizes_are_refused(width: int, layers: int) -> None:
    """A network without layers would fail later, far from the setting that asked for it."""
    with pytest.raises(ClientError, match="cannot be built"):
        fresh(1, width, layers)


def test_answers_do_not_depend_on_the_batch() -> None:
    """If neighbours changed an answer by one bit, games would not be repeatable."""
    rng = np.random.default_rng(2)
    network = Net(fresh(4, 96, 3))
    own, mask = board.empty(70)
    for _ in range(5):
        own, mask = board.drop(own, mask, rng.integers(0, 7, 70))
    logits, values = network.ask_positions(own, mask)
    for start, stop in ((0, 1), (69, 70), (3, 20), (10, 70)):
        part = network.ask_positions(own[start:stop], mask[start:stop])
        assert np.array_equal(part[0], logits[start:stop])
        assert np.array_equal(part[1], values[start:stop])
    assert (np.abs(values) <= 1.0).all()
