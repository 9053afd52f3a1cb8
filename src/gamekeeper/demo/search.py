"""Monte Carlo tree search for many games at once, with exact treatment of decided positions.

Every game owns one tree; all trees live in shared arrays and every simulation goes down all of them together, so
that numpy's cost per call and the network are shared by the whole batch. The move choice is PUCT
(D. Silver et al., "Mastering the game of Go without human knowledge", Nature 550, 2017). Wins and losses are
carried up exactly as in MCTS-Solver (M. Winands, Y. Björnsson, J. Saito, "Monte-Carlo Tree Search Solver", 2008):
a move to a position lost for the other side proves a win; when every move is lost the position is lost.

A position in which the side to move can win at once, or in which every move lets the other side win at once, is
recognised without a search and without the network. Values are seen by the side to move: 1 is won.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gamekeeper.demo.board import (
    CELLS,
    COLUMNS,
    COLUMNS_OF_BYTE,
    Boards,
    Flags,
    Prospects,
    columns_byte,
    drop,
    is_full,
)
from gamekeeper.demo.net import Floats, Net

Ints = npt.NDArray[np.int64]

NOISE_ALPHA = 1.0
_EXCLUDED = np.float32(-1e9)
_BIAS_OF_BYTE: Floats = np.where(COLUMNS_OF_BYTE == 1, np.float32(0.0), _EXCLUDED).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, one row a game.

    policy: share of visits of each column, float32 [games, 7]; a proven win holds winning moves only, moves
    proven lost hold nothing unless all are. values: float32 [games]. proven: int8 [games], 1 won, -1 lost, 0 open.
    evaluations: how many positions the network was asked about.
    """

    policy: Floats
    values: Floats
    proven: npt.NDArray[np.int8]
    evaluations: int


@dataclass(frozen=True, slots=True)
class Search:
    """Search settings. `exploration` is PUCT's constant; an unvisited move counts `reduction` below its parent."""

    simulations: int
    exploration: float = 1.0
    reduction: float = 0.2
    noise: float = 0.0

    def run(self, net: Net, own: Boards, mask: Boards, rng: np.random.Generator | None = None) -> Found:
        """Search the positions, none of which may be over. With `noise` above 0 the root priors are mixed
        with Dirichlet noise from `rng`."""
        games = len(own)
        prospects = Prospects(own, mask)
        policy = np.zeros((games, COLUMNS), np.float32)
        values = np.zeros(games, np.float32)
        proven = np.zeros(games, np.int8)
        won = prospects.winning != 0
        lost = ~won & (prospects.safe == 0) & ~is_full(mask)
        policy[won] = _evenly(prospects.winning[won])
        policy[lost] = _evenly(_resisting(prospects, lost))
        values[won], values[lost] = 1.0, -1.0
        proven[won], proven[lost] = 1, -1
        open_games = np.flatnonzero(~(won | lost))
        if len(open_games) == 0:
            return Found(policy, values, proven, 0)
        tree = _Tree(self, net, own[open_games], mask[open_games], rng)
        for _ in range(self.simulations):
            if not tree.simulate():
                break
        policy[open_games], values[open_games], proven[open_games] = tree.results()
        return Found(policy, values, proven, tree.evaluations)


def _evenly(cells: Boards) -> Floats:
    columns = COLUMNS_OF_BYTE[columns_byte(cells)].astype(np.float32)
    return np.asarray(columns / columns.sum(axis=1, keepdims=True), np.float32)


def _resisting(prospects: Prospects, lost: Flags) -> Boards:
    """In a lost position: the moves that at least stop one four, else all moves."""
    landing = prospects.landing[lost]
    blocking = landing & prospects.their_completing[lost]
    return np.where(blocking != 0, blocking, landing)


class _Tree:
    """The trees of one batch. Node k of game g has the number k * games + g; node 0 of a game is its root.

    An edge is a node's move: number node * 7 + column. `_scores[node]` holds two rows of seven: the mean value of
    each move, and its prior divided by one plus its visits; PUCT needs nothing else to choose.
    """

    def __init__(
        self, search: Search, net: Net, own: Boards, mask: Boards, rng: np.random.Generator | None
    ) -> None:
        games = len(own)
        nodes = games * (search.simulations + 1)
        self._search, self._net, self._games = search, net, games
        self._own, self._mask = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
        self._scores = np.zeros((nodes, 2, COLUMNS), np.float32)
        self._flat_scores = self._scores.reshape(-1)
        self._priors = np.zeros(nodes * COLUMNS, np.float32)
        self._visits = np.zeros(nodes * COLUMNS, np.float32)
        self._totals = np.zeros(nodes * COLUMNS, np.float32)
        self._children = np.full(nodes * COLUMNS, -1, np.int64)
        self._node_visits = np.zeros(nodes, np.float32)
        self._alive = np.zeros(nodes, np.int8)
        self._proven = np.zeros(games, np.int8)
        self._winning_move = np.zeros(games, np.int64)
        self._live: Ints = np.arange(games)
        self._path_nodes = np.zeros((CELLS, games), np.int64)
        self._path_moves = np.zeros((CELLS, games), np.int64)
        self._next = 1
        self.evaluations = 0
        self._grow(np.arange(games), Prospects(own, mask))
        if search.noise > 0.0 and rng is not None:
            self._add_noise(rng)

    def _grow(self, nodes: Ints, prospects: Prospects) -> Floats:
        """Make nodes for positions that are open; returns their values."""
        logits, values = self._net.ask(prospects)
        self.evaluations += len(nodes)
        moves = columns_byte(prospects.safe)
        bias = _BIAS_OF_BYTE[moves]
        logits = logits + bias
        logits -= logits.max(axis=1, keepdims=True)
        priors = np.exp(logits)
        priors /= priors.sum(axis=1, keepdims=True)
        priors += bias
        self._own[nodes], self._mask[nodes] = prospects.own, prospects.mask
        self._priors.reshape(-1, COLUMNS)[nodes] = priors
        self._scores[nodes, 0] = (values - np.float32(self._search.reduction))[:, None]
        self._scores[nodes, 1] = priors
        self._node_visits[nodes] = 1.0
        self._alive[nodes] = np.bitwise_count(moves)
        return values

    def _add_noise(self, rng: np.random.Generator) -> None:
        roots = self._priors.reshape(-1, COLUMNS)[: self._games]
        allowed = roots >= 0.0
        noise = rng.standard_gamma(NOISE_ALPHA, roots.shape) * allowed
        noise /= noise.sum(axis=1, keepdims=True)
        share = self._search.noise
        roots[:] = np.where(allowed, (1.0 - share) * roots + share * noise, roots)
        self._scores[: self._games, 1] = roots

    def simulate(self) -> bool:
        """One simulation in every game still open; False when none is."""
        live = self._live
        if len(live) == 0:
            return False
        levels, depths = self._descend()
        nodes, moves = self._path_nodes, self._path_moves
        at = np.arange(len(live))
        last_node, last_move = nodes[depths - 1, at], moves[depths - 1, at]
        own, mask = drop(self._own[last_node], self._mask[last_node], last_move)
        prospects = Prospects(own, mask)
        full = is_full(mask)
        won = prospects.winning != 0
        lost = ~won & (prospects.safe == 0) & ~full
        values = won.astype(np.float32) - lost.astype(np.float32)
        fresh = np.flatnonzero(~(won | lost | full))
        if len(fresh) > 0:
            numbers = self._next * self._games + live[fresh]
            everything = len(fresh) == len(live)
            chosen = prospects if everything else Prospects(own[fresh], mask[fresh])
            values[fresh] = self._grow(numbers, chosen)
            self._children[last_node[fresh] * COLUMNS + last_move[fresh]] = numbers
        self._next += 1
        self._back_up(levels, depths, values)
        decided = np.flatnonzero(won | lost)
        if len(decided) > 0:
            self._prove(decided, depths[decided] - 1, lost[decided])
            self._live = live[self._proven[live] == 0]
        return True

    def _descend(self) -> tuple[int, Ints]:
        """Walk from every open root to a move not tried before; the path matrices hold the walk by level.

        Returns (number of levels, depth of each walk), a depth being the count of moves walked.
        """
        live = self._live
        depths = np.zeros(len(live), np.int64)
        walking = np.arange(len(live))
        nodes: Ints = live
        for level in range(CELLS):
            scores = self._scores[nodes]
            scores[:, 1] *= (np.float32(self._search.exploration) * np.sqrt(self._node_visits[nodes]))[
                :, None
            ]
            moves = (scores[:, 0] + scores[:, 1]).argmax(axis=1)
            self._path_nodes[level, walking] = nodes
            self._path_moves[level, walking] = moves
            depths[walking] += 1
            children = self._children[nodes * COLUMNS + moves]
            inside = np.flatnonzero(children >= 0)
            if len(inside) == 0:
                return level + 1, depths
            nodes, walking = children[inside], walking[inside]
        raise AssertionError("a walk is longer than a game")

    def _back_up(self, levels: int, depths: Ints, values: Floats) -> None:
        """Add the leaves' values (seen by the side to move there) to every move walked."""
        count = len(depths)
        walked = np.arange(levels)[:, None] < depths
        at_root = np.where(depths & 1, -values, values).astype(np.float32)
        signs = np.where(np.arange(levels) & 1, -1.0, 1.0).astype(np.float32)
        gains = (signs[:, None] * at_root)[walked]
        nodes = self._path_nodes[:levels, :count][walked]
        moves = self._path_moves[:levels, :count][walked]
        edges = nodes * COLUMNS + moves
        visits = self._visits[edges] + np.float32(1.0)
        totals = self._totals[edges] + gains
        self._visits[edges], self._totals[edges] = visits, totals
        cells = edges + nodes * COLUMNS
        self._flat_scores[cells] = totals / visits
        self._flat_scores[cells + COLUMNS] = self._priors[edges] / (visits + np.float32(1.0))
        self._node_visits[nodes] += np.float32(1.0)

    def _prove(self, walks: Ints, levels: Ints, lost: Flags) -> None:
        """Carry decided leaves up. `lost[i]`: the move of walk i at its level leads to a lost position."""
        while len(walks) > 0:
            nodes, moves = self._path_nodes[levels, walks], self._path_moves[levels, walks]
            bad = np.flatnonzero(~lost)
            edges = nodes[bad] * COLUMNS + moves[bad]
            self._priors[edges] = _EXCLUDED
            self._flat_scores[edges + (nodes[bad] + 1) * COLUMNS] = _EXCLUDED
            self._alive[nodes[bad]] -= 1
            settled = lost | (self._alive[nodes] == 0)
            roots = np.flatnonzero(settled & (levels == 0))
            games = self._live[walks[roots]]
            self._proven[games] = np.where(lost[roots], 1, -1)
            self._winning_move[games] = moves[roots]
            upward = np.flatnonzero(settled & (levels > 0))
            walks, levels, lost = walks[upward], levels[upward] - 1, ~lost[upward]

    def results(self) -> tuple[Floats, Floats, npt.NDArray[np.int8]]:
        """(policy, values, proven) of the roots."""
        rows = slice(0, self._games)
        visits = self._visits.reshape(-1, COLUMNS)[rows]
        totals = self._totals.reshape(-1, COLUMNS)[rows]
        priors = self._priors.reshape(-1, COLUMNS)[rows]
        open_moves = priors >= 0.0
        counted = visits * open_moves
        unseen = counted.sum(axis=1) == 0
        counted[unseen] = (priors * open_moves)[unseen]
        lost = self._proven == -1
        counted[lost] = visits[lost]
        won = np.flatnonzero(self._proven == 1)
        counted[won] = 0.0
        counted[won, self._winning_move[won]] = 1.0
        policy = counted / counted.sum(axis=1, keepdims=True)
        seen = np.maximum((visits * open_moves).sum(axis=1), np.float32(1.0))
        values = (totals * open_moves).sum(axis=1) / seen
        values = np.where(self._proven == 0, np.clip(values, -1.0, 1.0), self._proven)
        return policy.astype(np.float32), values.astype(np.float32), self._proven
