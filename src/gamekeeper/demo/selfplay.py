"""The self-play stage: games of the model against itself, as training samples with search targets.

A game ends when it is over or when the search has proven its result; a proof is exact, and the moves after it
would teach nothing the search does not see by itself.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from gamekeeper.client import ClientError, Job, run
from gamekeeper.demo import board, net
from gamekeeper.demo.net import Net
from gamekeeper.demo.search import Found, Search
from gamekeeper.demo.training import Samples


@dataclass(frozen=True, slots=True)
class Style:
    """How games are played. The first `opening_plies` (at most; the number is drawn for each game) moves are random
    and give no samples; moves before `warm_plies` are drawn by visits, later ones by visits to the fourth power.
    The value target is (1 - search_share) * result + search_share * value of the search."""

    search: Search
    opening_plies: int = 6
    warm_plies: int = 12
    search_share: float = 0.5


class Table:
    """Some games played side by side from the first move to the last; `advance` makes one move in each."""

    def __init__(self, network: Net, style: Style, games: int, rng: np.random.Generator) -> None:
        self._net, self._style, self._rng = network, style, rng
        self._own, self._mask = _random_openings(games, style.opening_plies, rng)
        self._open = np.ones(games, np.bool_)
        self._moves: list[_Move] = []
        self._results = np.zeros(games, np.float32)
        self._last_mover = np.zeros(games, np.int64)
        self.evaluations = 0

    @property
    def position(self) -> tuple[board.Boards, board.Boards]:
        """Where every game stands: (own, mask)."""
        return self._own.copy(), self._mask.copy()

    @property
    def finished(self) -> int:
        """Number of games that are over or proven."""
        return int((~self._open).sum())

    def advance(self) -> bool:
        """One move in every open game; False when none is open."""
        games = np.flatnonzero(self._open)
        if len(games) == 0:
            return False
        own, mask = self._own[games], self._mask[games]
        found = self._style.search.run(self._net, own, mask, self._rng)
        self.evaluations += found.evaluations
        self._moves.append(_Move(games, own, mask, found))
        played = board.stones_played(mask)
        own, mask = board.drop(own, mask, self._draw(found.policy, played))
        self._own[games], self._mask[games] = own, mask
        won = board.has_four(own ^ mask)
        results = np.where(won, np.float32(1.0), found.proven.astype(np.float32))
        over = won | board.is_full(mask) | (found.proven != 0)
        ended = games[over]
        self._results[ended] = results[over]
        self._last_mover[ended] = played[over] & 1
        self._open[ended] = False
        return True

    def _draw(self, policy: net.Floats, played: npt.NDArray[np.int64]) -> board.Columns:
        power = np.where(played < self._style.warm_plies, 1.0, 4.0)[:, None]
        chances = policy.astype(np.float64) ** power
        chances /= chances.sum(axis=1, keepdims=True)
        drawn = (chances.cumsum(axis=1) < self._rng.random((len(chances), 1))).sum(axis=1)
        last = board.COLUMNS - 1 - (chances[:, ::-1] > 0).argmax(axis=1)
        return np.asarray(np.minimum(drawn, last), np.intp)

    def samples(self) -> tuple[Samples, npt.NDArray[np.int32]]:
        """The samples of all finished games, ordered by game and move, and the game each comes from."""
        if not self._moves:
            return _no_samples(), np.zeros(0, np.int32)
        games = np.concatenate([move.games for move in self._moves])
        own = np.concatenate([move.own for move in self._moves])
        mask = np.concatenate([move.mask for move in self._moves])
        policy = np.concatenate([move.found.policy for move in self._moves])
        proven = np.concatenate([move.found.proven for move in self._moves])
        searched = np.concatenate([move.found.values for move in self._moves])
        finished = np.flatnonzero(~self._open[games])
        rows = finished[np.lexsort((board.stones_played(mask[finished]), games[finished]))]
        same_side = (board.stones_played(mask[rows]) & 1) == self._last_mover[games[rows]]
        results = np.where(same_side, self._results[games[rows]], -self._results[games[rows]])
        share = np.float32(self._style.search_share)
        mixed = (np.float32(1.0) - share) * results + share * searched[rows]
        values = np.where(proven[rows] == 0, mixed, proven[rows]).astype(np.float32)
        samples = Samples(
            board.features(own[rows], mask[rows]), policy[rows], board.legal(mask[rows]), values
        )
        return samples, games[rows].astype(np.int32)


@dataclass(frozen=True, slots=True)
class _Move:
    games: npt.NDArray[np.int64]
    own: board.Boards
    mask: board.Boards
    found: Found


def _no_samples() -> Samples:
    planes = np.zeros((0, board.PLANES, board.ROWS, board.COLUMNS), np.uint8)
    moves = np.zeros((0, board.COLUMNS), np.uint8)
    return Samples(planes, moves.astype(np.float32), moves, np.zeros(0, np.float32))


def _random_openings(
    games: int, plies_max: int, rng: np.random.Generator
) -> tuple[board.Boards, board.Boards]:
    """Positions after 0 to `plies_max` random moves. A move that ends the game or lets it be won at once is not
    made; that game starts from the position before it."""
    own, mask = board.empty(games)
    plies = rng.integers(0, plies_max + 1, games)
    for ply in range(plies_max):
        chances = rng.random((games, board.COLUMNS)) * board.legal(mask)
        next_own, next_mask = board.drop(own, mask, chances.argmax(axis=1))
        prospects = board.Prospects(next_own, next_mask)
        quiet = (prospects.winning == 0) & ~board.has_four(next_own ^ next_mask) & ~board.is_full(next_mask)
        plies = np.where(quiet, plies, ply)
        moving = ply < plies
        own, mask = np.where(moving, next_own, own), np.where(moving, next_mask, mask)
    return own, mask


def write_shard(file: BinaryIO, samples: Samples, games: npt.NDArray[np.int32]) -> None:
    """Write samples as a compressed NPZ shard; the same samples always give the same bytes."""
    np.savez_compressed(
        file,
        features=samples.features,
        policy=samples.policy,
        legal=samples.legal,
        values=samples.values,
        game=games,
    )


def stage(job: Job) -> None:
    """Play the wanted games and hand in one shard; when asked to stop, hand in the games finished so far."""
    wanted = job.wanted("games", int)
    if wanted < 1:
        raise ClientError(f"{wanted} games are wanted.", "ask a self-play job for at least one game.")
    style = Style(
        Search(
            simulations=job.parameter("simulations", int),
            exploration=job.parameter("exploration", float, 1.0),
            noise=job.parameter("noise", float, 0.25),
        ),
        opening_plies=job.parameter("opening_plies", int, 6),
        warm_plies=job.parameter("warm_plies", int, 12),
        search_share=job.parameter("search_share", float, 0.5),
    )
    table = Table(Net(net.load(job.input("model").path)), style, wanted, np.random.default_rng(job.seed))
    while not job.should_stop() and table.advance():
        job.progress(table.finished, "playing")
    samples, games = table.samples()
    if table.finished == 0:
        raise ClientError(
            "Asked to stop before the first game was finished.", "nothing to hand in; try the job again."
        )
    shard = job.publish_shard(
        "games.npz",
        lambda file: write_shard(file, samples, games),
        games=table.finished,
        samples=len(samples),
    )
    job.progress(table.finished, "handed in", evaluations=table.evaluations)
    job.hand_in(games=table.finished, samples=len(samples), shards=[shard])


if __name__ == "__main__":
    sys.exit(run(stage))
