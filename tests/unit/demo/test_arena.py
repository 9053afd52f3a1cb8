"""Pairs are fair, repeatable and scored for the right side; the fixed opponents play as described."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.demo import arena, board, net
from gamekeeper.demo.arena import AlphaBetaPlayer, NetPlayer, PairResult, Pairs, Player, RandomPlayer
from gamekeeper.demo.net import Net
from gamekeeper.demo.search import Search
from tests.thoroughness import examples
from tests.unit.demo import connect4_reference as plain


def net_player(seed: int = 5, simulations: int = 12) -> NetPlayer:
    return NetPlayer(Net(net.new_weights(np.random.default_rng(seed), 16, 2)), Search(simulations))


def play(candidate: Player, opponent: Player, first_pair: int, count: int) -> list[PairResult]:
    pairs = Pairs(candidate, opponent, first_pair, count)
    while pairs.advance():
        pass
    assert pairs.finished == 2 * count
    return pairs.results()


def true_score(game: str, candidate_moves_first: bool) -> float:
    """The candidate's score by plain replay; after six plies of opening the first player is to move."""
    moves = [int(c) for c in game]
    columns = plain.replay(moves)
    candidate = 0 if candidate_moves_first else 1
    if plain.has_four(columns, candidate):
        return 1.0
    if plain.has_four(columns, 1 - candidate):
        return 0.0
    assert not plain.legal(columns)
    return 0.5


@pytest.mark.parametrize("opponent", [RandomPlayer(), AlphaBetaPlayer(2), net_player(9)])
def test_scores_follow_from_the_games(opponent: Player) -> None:
    """A score given to the wrong side would promote the weaker model."""
    for result in play(net_player(), opponent, 40, 6):
        assert result.first == true_score(result.games[0], candidate_moves_first=True)
        assert result.second == true_score(result.games[1], candidate_moves_first=False)
        assert result.games[0][:6] == result.games[1][:6]


def test_a_player_against_itself_scores_exactly_even() -> None:
    """Anything but even would show an unfair opening, a noisy search or a score on the wrong side."""
    player = net_player()
    for result in play(player, player, 0, 10):
        assert result.first + result.second == 1.0
        assert result.games[0] == result.games[1]


def test_a_pair_does_not_depend_on_the_job_it_is_played_in() -> None:
    """A pair that differs from job to job could be counted twice as new evidence."""
    for opponent in (RandomPlayer(), AlphaBetaPlayer(2), net_player(9)):
        together = play(net_player(), opponent, 10, 6)
        apart = play(net_player(), opponent, 12, 2)
        assert together[2:4] == apart
        assert [result.replay for result in apart] == [result.replay for result in together[2:4]]


def test_openings_are_all_different_and_undecided() -> None:
    """A repeated opening gives the same game twice and makes the test believe in more evidence than there is."""
    listed = arena.openings()
    assert len(listed) > 5000
    assert listed.shape[1] == arena.OPENING_PLIES
    positions = [min(plain.replay(row), plain.replay(row)[::-1]) for row in listed.tolist()]
    assert len(set(positions)) == len(positions)
    for columns in positions[:100]:
        assert plain.result_within(columns, 0, 2) == 0


def test_replays_tell_games_apart() -> None:
    """Equal hashes for different games would hide that a game was invented."""
    one = PairResult(0, 1.0, 0.0, ("0123", "0124"))
    two = PairResult(0, 1.0, 0.0, ("0123", "0125"))
    assert one.replay != two.replay
    assert one.replay == PairResult(3, 0.0, 0.0, ("0123", "0124")).replay


@pytest.mark.unmeasured
@examples(20)
@given(st.lists(st.integers(0, 6), max_size=14), st.integers(0, 1000))
def test_alpha_beta_takes_wins_and_stops_losses(tries: list[int], seed: int) -> None:
    """A sign error in the look-ahead would make the yardstick a weakling."""
    moves: list[int] = []
    for column in tries:
        columns, player = plain.replay(moves), len(moves) % 2
        if column in plain.legal(columns) and not plain.has_four(plain.drop(columns, column, player), player):
            moves.append(column)
    columns, player = plain.replay(moves), len(moves) % 2
    own, mask = board.from_moves(moves)
    move = int(AlphaBetaPlayer(4).choose(own, mask, np.array([seed]))[0])
    truth = plain.result_within(columns, player, 3)
    after = plain.drop(columns, move, player)
    if truth == 1:
        assert plain.result_within(after, 1 - player, 2) == -1
    elif truth == 0:
        assert plain.result_within(after, 1 - player, 2) != 1


def test_alpha_beta_wins_at_once_when_it_can() -> None:
    """A win put off is a win thrown away when the other side finds a way out."""
    own, mask = board.from_moves([0, 0, 1, 1, 2, 2])
    assert AlphaBetaPlayer(4).choose(own, mask, np.array([0]))[0] == 3


def test_alpha_beta_beats_random_play() -> None:
    """A yardstick that loses to chance measures nothing."""
    results = play(AlphaBetaPlayer(3), RandomPlayer(), 0, 10)
    assert np.mean([result.first + result.second for result in results]) > 1.8


class Counting(RandomPlayer):
    """Random play that records the moves asked of it."""

    def __init__(self) -> None:
        self.chosen: list[int] = []

    def choose(self, own: board.Boards, mask: board.Boards, seats: npt.NDArray[np.int64]) -> board.Columns:
        columns = super().choose(own, mask, seats)
        assert (board.legal(mask)[np.arange(len(own)), columns] == 1).all()
        self.chosen += columns.tolist()
        return columns


def test_random_play_uses_every_column() -> None:
    """A random player with a favourite column is easier to beat than it should be."""
    player = Counting()
    play(player, player, 0, 20)
    counts = np.bincount(player.chosen, minlength=7) / len(player.chosen)
    assert (counts > 0.07).all()
