"""Training of the policy-value network: loss, gradients, Adam, and minibatches over a window of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gamekeeper.client import ClientError
from gamekeeper.demo.board import COLUMNS, FEATURES, PLANES, ROWS, Bytes
from gamekeeper.demo.net import Floats, Weights, layers_of, read_arrays

SHARD_BYTES_MAX = 1 << 30
_SHARD_REMEDY = (
    "the line's data contract should refuse such a shard: compare it with what this program reads."
)
_MASKED = np.float32(-1e9)


@dataclass(frozen=True, slots=True)
class Samples:
    """Training data. features u8 [N, 5, 6, 7]; policy f32 [N, 7], a distribution; legal u8 [N, 7]; values f32 [N]
    from -1 to 1, the result for the side to move."""

    features: Bytes
    policy: Floats
    legal: Bytes
    values: Floats

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: npt.NDArray[np.int64]) -> Samples:
        """The samples of these rows."""
        return Samples(self.features[rows], self.policy[rows], self.legal[rows], self.values[rows])

    def mirrored(self, flip: npt.NDArray[np.bool_]) -> Samples:
        """The same samples, those marked in `flip` reflected left to right: the game does not change by it."""
        return Samples(
            np.where(flip[:, None, None, None], self.features[..., ::-1], self.features),
            np.where(flip[:, None], self.policy[:, ::-1], self.policy),
            np.where(flip[:, None], self.legal[:, ::-1], self.legal),
            self.values,
        )


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean loss of a batch: cross entropy of the policy (nats) and squared error of the value."""

    policy: float
    value: float

    @property
    def total(self) -> float:
        return self.policy + self.value


def read_shard(path: Path) -> Samples:
    """The samples of one shard file. Raises ClientError when it holds anything else."""
    try:
        arrays = read_arrays(path, SHARD_BYTES_MAX)
        samples = Samples(arrays["features"], arrays["policy"], arrays["legal"], arrays["values"])
    except (ValueError, KeyError) as error:
        raise ClientError(f"Shard {path.name} does not load: {error}.", _SHARD_REMEDY) from error
    count = samples.values.size
    expected = [
        ("|u1", (count, PLANES, ROWS, COLUMNS)),
        ("<f4", (count, COLUMNS)),
        ("|u1", (count, COLUMNS)),
        ("<f4", (count,)),
    ]
    held = [(a.dtype.str, a.shape) for a in (samples.features, samples.policy, samples.legal, samples.values)]
    if held != expected:
        raise ClientError(f"Shard {path.name} holds {held}, expected {expected}.", _SHARD_REMEDY)
    return samples


def join(parts: Sequence[Samples], newest: int) -> Samples:
    """One window: the last `newest` samples of the parts, which are given oldest first."""
    whole = Samples(
        np.concatenate([part.features for part in parts]),
        np.concatenate([part.policy for part in parts]),
        np.concatenate([part.legal for part in parts]),
        np.concatenate([part.values for part in parts]),
    )
    return whole.take(np.arange(max(0, len(whole) - newest), len(whole)))


def loss_and_gradients(weights: Weights, batch: Samples, value_weight: float = 1.0) -> tuple[Loss, Weights]:
    """Mean loss over the batch and its gradient, in the precision of the weights.

    The gradient is of policy + value_weight * value; illegal moves take no part in the softmax.
    """
    precision = weights["wh"].dtype
    layers = layers_of(weights)
    x = batch.features.reshape(len(batch), FEATURES).astype(precision)
    hidden, active = [x], []
    for layer in range(layers):
        inner = hidden[-1] @ weights[f"w{layer}"] + weights[f"b{layer}"]
        active.append(inner > 0)
        grown = np.maximum(inner, 0)
        hidden.append(grown if layer == 0 else hidden[-1] + grown)
    outputs = hidden[-1] @ weights["wh"] + weights["bh"]
    logits = np.where(batch.legal == 1, outputs[:, :COLUMNS], _MASKED)
    logits = logits - logits.max(axis=1, keepdims=True)
    chances = np.exp(logits)
    norm = chances.sum(axis=1, keepdims=True)
    chances /= norm
    value = np.tanh(outputs[:, COLUMNS])
    off = value - batch.values
    count = len(batch)
    cross = -(batch.policy * (logits - np.log(norm)) * (batch.legal == 1)).sum(axis=1)
    loss = Loss(float(cross.mean()), float((off * off).mean()))
    slope = np.empty_like(outputs)
    slope[:, :COLUMNS] = (chances * batch.policy.sum(axis=1, keepdims=True) - batch.policy) / count
    slope[:, COLUMNS] = 2.0 * value_weight * off * (1.0 - value * value) / count
    gradients: Weights = {"wh": hidden[-1].T @ slope, "bh": slope.sum(axis=0)}
    back = slope @ weights["wh"].T
    for layer in reversed(range(layers)):
        inner_slope = back * active[layer]
        gradients[f"w{layer}"] = hidden[layer].T @ inner_slope
        gradients[f"b{layer}"] = inner_slope.sum(axis=0)
        if layer > 0:
            back = back + inner_slope @ weights[f"w{layer}"].T
    return loss, gradients


class Adam:
    """Adam (D. Kingma and J. Ba, 2015), with decoupled weight decay (I. Loshchilov and F. Hutter, 2019) on matrices."""

    def __init__(self, weights: Weights, decay: float = 0.0) -> None:
        self._first = {name: np.zeros_like(array) for name, array in weights.items()}
        self._second = {name: np.zeros_like(array) for name, array in weights.items()}
        self._decay = decay
        self._step = 0

    def step(self, weights: Weights, gradients: Weights, rate: float) -> None:
        """Change the weights in place by one step of size `rate`."""
        self._step += 1
        keep_first, keep_second = 0.9, 0.999
        correct_first = 1.0 - keep_first**self._step
        correct_second = 1.0 - keep_second**self._step
        for name, slope in gradients.items():
            first, second, array = self._first[name], self._second[name], weights[name]
            first += (slope - first) * (1.0 - keep_first)
            second += (slope * slope - second) * (1.0 - keep_second)
            if array.ndim == 2 and self._decay > 0.0:
                array *= 1.0 - rate * self._decay
            array -= (rate / correct_first) * first / (np.sqrt(second / correct_second) + 1e-8)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How to train: steps, samples a step, the highest learning rate, weight decay, weight of the value loss."""

    steps: int
    batch: int = 512
    rate: float = 2e-3
    decay: float = 1e-4
    value_weight: float = 1.0

    def rate_at(self, step: int) -> float:
        """Rises over the first twentieth of the steps, then falls along a cosine to a hundredth."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.rate * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return float(self.rate * (0.01 + 0.99 * 0.5 * (1.0 + np.cos(np.pi * done))))


class Trainer:
    """Trains a copy of the parent's weights on a window of samples, one minibatch a call of `step`."""

    def __init__(
        self, parent: Weights, window: Samples, schedule: Schedule, rng: np.random.Generator
    ) -> None:
        self.weights: Weights = {name: array.copy() for name, array in parent.items()}
        self._window, self._schedule, self._rng = window, schedule, rng
        self._adam = Adam(self.weights, schedule.decay)
        self._order = rng.permutation(len(window))
        self._at = 0
        self.steps = 0

    def step(self) -> Loss:
        """One step on the next minibatch, each sample reflected or not by chance."""
        size = min(self._schedule.batch, len(self._order))
        if self._at + size > len(self._order):
            self._order, self._at = self._rng.permutation(len(self._window)), 0
        rows = np.sort(self._order[self._at : self._at + size])
        self._at += size
        batch = self._window.take(rows).mirrored(self._rng.random(size) < 0.5)
        loss, gradients = loss_and_gradients(self.weights, batch, self._schedule.value_weight)
        self._adam.step(self.weights, gradients, self._schedule.rate_at(self.steps))
        self.steps += 1
        return loss
