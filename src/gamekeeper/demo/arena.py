"""Games between two players, in pairs: one opening, each player once on each side.

Everything about a pair follows from its number, so that a pair can be played again anywhere and gives the same games.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gamekeeper.client import content_hash
from gamekeeper.demo import board
from gamekeeper.demo.board import COLUMNS, Boards, Columns, Prospects
from gamekeeper.demo.net import Net
from gamekeeper.demo.search import Search

OPENING_PLIES = 6
_OPENING_ORDER_SEED = 20_011
_PREFERENCE = np.array([0, 1, 2, 3, 2, 1, 0], dtype=np.float64) * 1e-6
_WIN = 1_000_000
_CENTRE = (0, 1, 2, 3, 2, 1, 0)


class Player(Protocol):
    """Chooses columns for positions that are not over. `seats` names each game: pair number * 2 + (0 | 1)."""

    def choose(self, own: Boards, mask: Boards, seats: npt.NDArray[np.int64]) -> Columns: ...


class NetPlayer:
    """The network with a search: the most visited move, without noise; ties go to the centre."""

    def __init__(self, net: Net, search: Search) -> None:
        self._net, self._search = net, search

    def choose(self, own: Boards, mask: Boards, seats: npt.NDArray[np.int64]) -> Columns:
        return best_columns(self._search.run(self._net, own, mask).policy)


def best_columns(policy: npt.NDArray[np.float32]) -> Columns:
    """The column of the largest share in each row; ties go to the centre."""
    return np.asarray((policy.astype(np.float64) + _PREFERENCE).argmax(axis=1), np.intp)


class RandomPlayer:
    """Any legal move, by a generator that follows from the game and the number of stones on the board."""

    def choose(self, own: Boards, mask: Boards, seats: npt.NDArray[np.int64]) -> Columns:
        legal = board.legal(mask)
        stones = board.stones_played(mask)
        columns = np.zeros(len(own), np.intp)
        for row, (seat, played) in enumerate(zip(seats.tolist(), stones.tolist(), strict=True)):
            choices = np.flatnonzero(legal[row])
            columns[row] = choices[np.random.default_rng([seat, played]).integers(len(choices))]
        return columns


class AlphaBetaPlayer:
    """Fixed-depth minimax with a plain heuristic: the move alpha-beta would find, nearest to the centre.

    All positions of a level are valued together, which is faster here than cutting branches one by one; the value
    of the root is the same.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth

    def choose(self, own: Boards, mask: Boards, seats: npt.NDArray[np.int64]) -> Columns:
        games = len(own)
        columns = np.zeros(games, np.intp)
        for start in range(0, games, 32):
            part = slice(start, start + 32)
            values = _move_values(own[part], mask[part], self._depth)
            columns[part] = (values * 4 + np.array(_CENTRE)).argmax(axis=1)
        return columns


def _move_values(own: Boards, mask: Boards, depth: int) -> npt.NDArray[np.int64]:
    """Value of each move for the side to move, int64 [games, 7]; illegal moves are worth less than any loss."""
    values = np.full((len(own), COLUMNS), -2 * _WIN, np.int64)
    rows, columns = np.nonzero(board.legal(mask))
    next_own, next_mask = board.drop(own[rows], mask[rows], columns)
    values[rows, columns] = -_negamax(next_own, next_mask, depth - 1)
    return values


def _negamax(own: Boards, mask: Boards, depth: int) -> npt.NDArray[np.int64]:
    """Value for the side to move; wins count more the sooner they come (the deeper the search left)."""
    lost = board.has_four(own ^ mask)
    full = board.is_full(mask)
    values = np.where(lost, -(_WIN + depth), 0).astype(np.int64)
    going_on = np.flatnonzero(~(lost | full))
    if len(going_on) > 0:
        if depth == 0:
            values[going_on] = _heuristic(own[going_on], mask[going_on])
        else:
            values[going_on] = _move_values(own[going_on], mask[going_on], depth).max(axis=1)
    return values


def _heuristic(own: Boards, mask: Boards) -> npt.NDArray[np.int64]:
    """Cells that complete four (10 each) and stones near the centre (up to 3 each), ours less theirs."""
    theirs = own ^ mask
    ours = np.bitwise_count(board.completing_cells(own, mask)).astype(np.int64)
    score = 10 * (ours - np.bitwise_count(board.completing_cells(theirs, mask)))
    for column, weight in enumerate(_CENTRE):
        cells = board.COLUMN_CELLS[column]
        score += weight * (np.bitwise_count(own & cells).astype(np.int64) - np.bitwise_count(theirs & cells))
    return np.asarray(score, np.int64)


@cache
def openings() -> npt.NDArray[np.int8]:
    """All different positions after six moves that are not yet decided within two moves, as moves [n, 6].

    Of two positions that mirror each other only one is listed. The order is a fixed shuffle.
    """
    own, mask = board.empty(1)
    moves = np.zeros((1, 0), np.int8)
    for _ in range(OPENING_PLIES):
        rows, columns = np.nonzero(board.legal(mask))
        own, mask = board.drop(own[rows], mask[rows], columns)
        moves = np.column_stack([moves[rows], columns.astype(np.int8)])
        _, first = np.unique(_canonical_keys(own, mask), return_index=True)
        own, mask, moves = own[first], mask[first], moves[first]
    prospects = Prospects(own, mask)
    undecided = (prospects.winning == 0) & (prospects.safe != 0) & ~board.has_four(own ^ mask)
    kept: npt.NDArray[np.int8] = moves[undecided]
    order = np.random.default_rng(_OPENING_ORDER_SEED).permutation(len(kept))
    return np.ascontiguousarray(kept[order])


def _canonical_keys(own: Boards, mask: Boards) -> Boards:
    """One number a position, the same for its mirror image."""
    return np.minimum(_key(own, mask), _key(board.mirror(own), board.mirror(mask)))


def _key(own: Boards, mask: Boards) -> Boards:
    """A number that tells positions apart: `own` plus the landing cells, which mark the height of every column."""
    return own + board.landing_cells(mask) + (mask << 8 & ~board.BOARD)


@dataclass(frozen=True, slots=True)
class PairResult:
    """One pair. `first` and `second` are the candidate's scores (0, 0.5, 1) when it moves first and second after
    the opening; the games are columns from the empty board, opening included."""

    pair: int
    first: float
    second: float
    games: tuple[str, str]

    @property
    def replay(self) -> str:
        """BLAKE3 of both games' moves."""
        return content_hash("|".join(self.games).encode())


class Pairs:
    """Pairs `first_pair` to `first_pair + count - 1`, played side by side; `advance` makes one move in each."""

    def __init__(self, candidate: Player, opponent: Player, first_pair: int, count: int) -> None:
        self._players = (candidate, opponent)
        self._first_pair, self._count = first_pair, count
        listed = openings()
        moves = np.repeat(listed[np.arange(first_pair, first_pair + count) % len(listed)], 2, axis=0)
        self._own, self._mask = board.empty(2 * count)
        for ply in range(OPENING_PLIES):
            self._own, self._mask = board.drop(self._own, self._mask, moves[:, ply].astype(np.intp))
        self._texts = ["".join(map(str, row)) for row in moves.tolist()]
        self._turn = np.arange(2 * count) % 2
        self._scores = np.full(2 * count, np.nan)
        self._seats = np.arange(2 * first_pair, 2 * (first_pair + count))

    @property
    def finished(self) -> int:
        """Number of games that are over."""
        return int((~np.isnan(self._scores)).sum())

    def advance(self) -> bool:
        """One move in every game not over; False when all are."""
        open_games = np.flatnonzero(np.isnan(self._scores))
        if len(open_games) == 0:
            return False
        for side, player in enumerate(self._players):
            games = open_games[self._turn[open_games] == side]
            if len(games) > 0:
                columns = player.choose(self._own[games], self._mask[games], self._seats[games])
                self._play(games, columns, side)
        self._turn[open_games] ^= 1
        return True

    def _play(self, games: npt.NDArray[np.int64], columns: Columns, side: int) -> None:
        own, mask = board.drop(self._own[games], self._mask[games], columns)
        self._own[games], self._mask[games] = own, mask
        for game, column in zip(games.tolist(), columns.tolist(), strict=True):
            self._texts[game] += str(column)
        won = board.has_four(own ^ mask)
        self._scores[games[board.is_full(mask)]] = 0.5
        self._scores[games[won]] = 1.0 - side

    def results(self) -> list[PairResult]:
        """The pairs of which both games are over."""
        done = []
        for number in range(self._count):
            one, two = 2 * number, 2 * number + 1
            if not np.isnan(self._scores[[one, two]]).any():
                games = (self._texts[one], self._texts[two])
                first, second = float(self._scores[one]), float(self._scores[two])
                done.append(PairResult(self._first_pair + number, first, second, games))
        return done
