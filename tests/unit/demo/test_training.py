"""The gradient is the derivative of the loss, and following it lowers the loss without touching the parent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.client import ClientError
from gamekeeper.demo import board, net
from gamekeeper.demo.net import Net, Weights
from gamekeeper.demo.training import Adam, Samples, Schedule, Trainer, join, loss_and_gradients, read_shard
from tests.thoroughness import examples


def some_samples(count: int, seed: int) -> Samples:
    """Random positions with random targets on legal moves."""
    rng = np.random.default_rng(seed)
    own, mask = board.empty(count)
    for _ in range(9):
        own, mask = board.drop(own, mask, rng.integers(0, 7, count))
    legal = board.legal(mask)
    chances = rng.random((count, 7)) * legal
    policy = (chances / chances.sum(axis=1, keepdims=True)).astype(np.float32)
    return Samples(board.features(own, mask), policy, legal, rng.uniform(-1, 1, count).astype(np.float32))


@examples(15)
@given(st.integers(0, 1000), st.integers(1, 3), st.floats(0.2, 3.0))
def test_gradient_equals_finite_differences(seed: int, layers: int, value_weight: float) -> None:
    """A wrong term in the backward pass still trains, only badly: only the derivative itself shows it."""
    rng = np.random.default_rng(seed)
    weights = {k: v.astype(np.float64) for k, v in net.new_weights(rng, 6, layers).items()}
    weights = {name: array + rng.normal(0, 0.1, array.shape) for name, array in weights.items()}
    batch = some_samples(5, seed)
    _, gradients = loss_and_gradients(weights, batch, value_weight)  # type: ignore[arg-type]
    step = 1e-6
    for name, array in weights.items():
        direction = rng.normal(size=array.shape)

        def total(amount: float, name: str = name, direction: np.ndarray = direction) -> float:
            moved = {**weights, name: weights[name] + amount * direction}
            loss, _ = loss_and_gradients(moved, batch, value_weight)  # type: ignore[arg-type]
            return loss.policy + value_weight * loss.value

        slope = (total(step) - total(-step)) / (2 * step)
        assert float((gradients[name] * direction).sum()) == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_the_trained_and_the_playing_network_are_the_same_function() -> None:
    """If training and play computed different networks, the loss would fall and the play stay bad."""
    weights = net.new_weights(np.random.default_rng(3), 20, 3)
    rng = np.random.default_rng(4)
    own, mask = board.empty(30)
    for _ in range(7):
        own, mask = board.drop(own, mask, rng.integers(0, 7, 30))
    logits, values = Net(weights).ask_positions(own, mask)
    legal = board.legal(mask)
    shares = np.exp(logits) * legal
    policy = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    batch = Samples(board.features(own, mask), policy, legal, values)
    loss, gradients = loss_and_gradients(weights, batch)
    assert loss.value == pytest.approx(0.0, abs=1e-9)
    assert all(np.abs(slope).max() < 1e-5 for slope in gradients.values())


def test_illegal_moves_take_no_part() -> None:
    """A softmax over all columns would spend the net on unlearning moves nobody can make."""
    weights = net.new_weights(np.random.default_rng(3), 8, 1)
    batch = some_samples(4, 1)
    blocked = Samples(
        batch.features, np.eye(7, dtype=np.float32)[[2] * 4], np.eye(7, dtype=np.uint8)[[2] * 4], batch.values
    )
    loss, gradients = loss_and_gradients(weights, blocked)
    assert loss.policy == pytest.approx(0.0, abs=1e-6)
    assert np.abs(gradients["bh"][:7]).max() < 1e-6


def lessons(count: int) -> Samples:
    """Positions with a rule to learn: play the lowest legal column; holding its bottom cell is good."""
    samples = some_samples(count, 2)
    policy = np.eye(7, dtype=np.float32)[samples.legal.argmax(axis=1)]
    values = np.where(samples.features[:, 0, 0, 0] == 1, 0.8, -0.8).astype(np.float32)
    return Samples(samples.features, policy, samples.legal, values)


def trained(parent: Weights, steps: int, seed: int = 0) -> tuple[list[float], Weights]:
    trainer = Trainer(
        parent, lessons(300), Schedule(steps, batch=64, rate=0.003), np.random.default_rng(seed)
    )
    return [trainer.step().total for _ in range(steps)], trainer.weights


def test_training_lowers_the_loss_and_leaves_the_parent_alone() -> None:
    """A step in the wrong direction, or into the parent's own arrays, would pass for progress."""
    parent = net.new_weights(np.random.default_rng(1), 32, 2)
    before = {name: array.copy() for name, array in parent.items()}
    losses, weights = trained(parent, 150)
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    assert all(np.array_equal(parent[name], before[name]) for name in parent)
    assert all(not np.array_equal(weights[name], parent[name]) for name in parent)


def test_training_continues_from_the_parent() -> None:
    """Training that starts from scratch each time would never add up."""
    _, weights = trained(net.new_weights(np.random.default_rng(1), 32, 2), 150)
    first_losses, _ = trained(net.new_weights(np.random.default_rng(1), 32, 2), 1)
    continued, _ = trained(weights, 1)
    assert continued[0] < 0.5 * first_losses[0]


def test_same_seed_same_weights() -> None:
    """Randomness from anywhere but the seed would make a training run unrepeatable."""
    parent = net.new_weights(np.random.default_rng(1), 8, 2)
    _, one = trained(parent, 20, seed=5)
    _, two = trained(parent, 20, seed=5)
    _, other = trained(parent, 20, seed=6)
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_adam_moves_by_the_rate_at_first() -> None:
    """Without its bias correction Adam's first step is a tenth of what the schedule says."""
    weights: Weights = {"b": np.zeros(3, np.float32)}
    Adam(weights).step(weights, {"b": np.array([5.0, -0.1, 2.0], np.float32)}, rate=0.01)
    assert weights["b"] == pytest.approx([-0.01, 0.01, -0.01], rel=1e-4)


def test_decay_shrinks_matrices_only() -> None:
    """Decay on biases would pull the value of every position towards even."""
    weights: Weights = {"w": np.ones((2, 2), np.float32), "b": np.ones(2, np.float32)}
    Adam(weights, decay=0.5).step(
        weights, {name: np.zeros_like(array) for name, array in weights.items()}, rate=0.1
    )
    assert weights["w"] == pytest.approx(np.full((2, 2), 0.95))
    assert weights["b"] == pytest.approx(np.ones(2))


@examples(50)
@given(st.integers(1, 3000))
def test_the_learning_rate_rises_and_falls_within_bounds(steps: int) -> None:
    """A rate of zero wastes the run, one above the setting makes it diverge."""
    schedule = Schedule(steps, rate=0.002)
    rates = [schedule.rate_at(step) for step in range(steps)]
    assert all(0.0 < rate <= 0.002 + 1e-12 for rate in rates)
    peak = int(np.argmax(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_reflection_turns_every_array_that_has_columns() -> None:
    """A reflected board with an unreflected policy teaches moves on the wrong side."""
    samples = some_samples(6, 3)
    flip = np.array([True, False, True, False, False, True])
    turned = samples.mirrored(flip)
    for row, flipped in enumerate(flip):
        way = -1 if flipped else 1
        assert np.array_equal(turned.features[row], samples.features[row][..., ::way])
        assert np.array_equal(turned.policy[row], samples.policy[row][::way])
        assert np.array_equal(turned.legal[row], samples.legal[row][::way])
    assert np.array_equal(turned.values, samples.values)


@examples(50)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 60))
def test_the_window_holds_the_newest_samples(sizes: list[int], newest: int) -> None:
    """A window cut at the wrong end would train on the oldest games for ever."""
    parts = [
        some_samples(size, seed) if size else some_samples(1, 0).take(np.zeros(0, np.int64))
        for seed, size in enumerate(sizes)
    ]
    whole = np.concatenate([part.values for part in parts])
    assert np.array_equal(join(parts, newest).values, whole[max(0, len(whole) - newest) :])


@pytest.mark.parametrize("fault", ["missing", "shape", "type", "cut"])
def test_a_shard_that_is_none_is_refused(tmp_path: Path, fault: str) -> None:
    """A trainer that guesses what a damaged shard meant trains on nonsense."""
    samples = some_samples(5, 1)
    arrays = {
        "features": samples.features,
        "policy": samples.policy,
        "legal": samples.legal,
        "values": samples.values,
    }
    if fault == "missing":
        del arrays["policy"]
    if fault == "shape":
        arrays["policy"] = samples.policy[:, :6]
    if fault == "type":
        arrays["values"] = samples.values.astype(np.float64)
    path = tmp_path / "s.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ClientError, match="Shard s"):
        read_shard(path)
