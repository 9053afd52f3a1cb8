"""The search is exact where the game is decided, and its values have the right sign everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.demo import board, net
from gamekeeper.demo.net import Net
from gamekeeper.demo.search import Found, Search
from tests.thoroughness import examples
from tests.unit.demo import connect4_reference as plain

SMALL = Net(net.new_weights(np.random.default_rng(5), 16, 2))


def search(moves: list[int], simulations: int = 200, network: Net = SMALL) -> Found:
    return Search(simulations).run(network, *board.from_moves(moves))


def random_game(seed: int, length: int) -> list[int]:
    """Moves of a random game that nobody has won."""
    rng = np.random.default_rng(seed)
    moves: list[int] = []
    while len(moves) < length:
        columns, player = plain.replay(moves), len(moves) % 2
        quiet = [
            c for c in plain.legal(columns) if not plain.has_four(plain.drop(columns, c, player), player)
        ]
        if not quiet:
            break
        moves.append(int(rng.choice(quiet)))
    return moves


@pytest.mark.parametrize(
    ("moves", "wins"),
    [
        ([0, 1, 0, 1, 0, 1], {0}),  # four in a column
        ([0, 0, 1, 1, 2, 2], {3}),  # four in a row
        ([3, 0, 3, 0, 3, 6, 1, 0], {3}),
        ([0, 1, 1, 2, 2, 3, 2, 3, 3, 6], {3}),  # rising diagonal
        ([6, 5, 5, 4, 4, 3, 4, 3, 3, 0], {3}),  # falling diagonal
    ],
)
def test_a_win_in_one_is_taken(moves: list[int], wins: set[int]) -> None:
    """A search that weighs an immediate win like other moves would miss it some day."""
    found = search(moves, simulations=1)
    assert found.proven[0] == 1
    assert found.values[0] == 1.0
    assert set(np.flatnonzero(found.policy[0])) == wins


@pytest.mark.parametrize(
    ("moves", "block"),
    [([0, 6, 1, 5, 2], 3), ([3, 0, 3, 0, 3], 3), ([1, 0, 2, 0, 6, 0], 0), ([0, 3, 6, 3, 0, 3], 3)],
)
def test_the_only_block_is_played(moves: list[int], block: int) -> None:
    """A search that overlooks the other side's four would lose at once."""
    policy = search(moves, simulations=1).policy[0]
    assert policy[block] == 1.0


def test_an_open_three_is_prevented() -> None:
    """Two stones with both ends free win by force unless answered next to them; a shallow search would look away."""
    found = search([3, 3, 2], simulations=400)
    assert int(found.policy[0].argmax()) in {1, 4}


@pytest.mark.unmeasured
@examples(30)
@given(st.integers(0, 10**6), st.integers(6, 34))
def test_forced_results_are_found(seed: int, length: int) -> None:
    """A sign error on the way up, or a proof from unproven moves, would contradict plain look-ahead."""
    moves = random_game(seed, length)
    columns, player = plain.replay(moves), len(moves) % 2
    if not plain.legal(columns):
        return
    truth = plain.result_within(columns, player, 3)
    found = search(moves, simulations=400)
    if truth != 0:
        assert found.proven[0] == truth
        assert found.values[0] == truth
    if truth == 1:
        move = int(found.policy[0].argmax())
        assert plain.result_within(plain.drop(columns, move, player), 1 - player, 2) == -1
    if truth == 0 and found.proven[0] != 0:
        deeper = 4 if len(moves) < 30 else 12
        assert plain.result_within(columns, player, deeper) in {0, found.proven[0]}


@pytest.mark.unmeasured
@examples(25)
@given(st.integers(0, 10**6))
def test_the_end_of_the_game_is_solved(seed: int) -> None:
    """With few cells left the search must know the exact result, draws included."""
    moves = random_game(seed, 34)
    columns, player = plain.replay(moves), len(moves) % 2
    if len(moves) < 30 or not plain.legal(columns):
        return
    truth = plain.result_within(columns, player, 12)
    found = search(moves, simulations=3000)
    assert found.proven[0] == truth
    if truth != -1:
        move = int(found.policy[0].argmax())
        assert plain.result_within(plain.drop(columns, move, player), 1 - player, 12) == -truth


class Pessimist(Net):
    """Thinks the side to move is badly off, by an amount that depends on the position."""

    def ask(self, prospects: board.Prospects) -> tuple[net.Floats, net.Floats]:
        logits, _ = super().ask(prospects)
        return np.zeros_like(logits), np.full(len(logits), -0.5, np.float32)


def test_a_value_changes_sign_with_the_side_to_move() -> None:
    """Bad for them after one move is good for us, after two it is bad again: a lost sign shows in either mean."""
    pessimist = Pessimist(SMALL.weights)
    assert search([], simulations=1, network=pessimist).values[0] == pytest.approx(0.5)
    assert search([], simulations=2, network=pessimist).values[0] == pytest.approx(0.0)


@examples(30)
@given(st.integers(0, 10**6), st.integers(0, 30))
def test_policy_is_a_distribution_over_legal_moves(seed: int, length: int) -> None:
    """Weight on an illegal move, or a sum other than one, would poison the training data."""
    moves = random_game(seed, length)
    own, mask = board.from_moves(moves)
    if board.is_full(mask)[0]:
        return
    found = Search(20, noise=0.25).run(SMALL, own, mask, np.random.default_rng(seed))
    assert found.policy[0].sum() == pytest.approx(1.0, abs=1e-5)
    assert (found.policy[0] >= 0).all()
    assert (found.policy[0][board.legal(mask)[0] == 0] == 0).all()
    assert -1.0 <= found.values[0] <= 1.0


def test_a_game_is_searched_alike_alone_and_in_a_batch() -> None:
    """If the batch changed an answer, a pair played again in another job would give other games."""
    games = [random_game(seed, 8) for seed in range(40)]
    parts = [board.from_moves(moves) for moves in games]
    together = Search(50).run(
        SMALL, np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    )
    for row, part in enumerate(parts):
        alone = Search(50).run(SMALL, *part)
        assert np.array_equal(alone.policy[0], together.policy[row])
        assert alone.values[0] == together.values[row]


def test_noise_changes_the_search_only_when_asked() -> None:
    """Noise that leaks into evaluation makes its games unrepeatable; noise that does nothing makes self-play narrow."""
    own, mask = board.empty(4)
    plain_search, noisy = Search(30), Search(30, noise=0.5)
    rng = np.random.default_rng(1)
    quiet = plain_search.run(SMALL, own, mask, rng).policy
    assert np.array_equal(quiet[0], quiet[3])
    loud = noisy.run(SMALL, own, mask, rng).policy
    assert not np.array_equal(loud[0], loud[1])
