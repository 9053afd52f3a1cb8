"""Tic-tac-toe as a line of its own: four stages in one file, using nothing of Gamekeeper but its client.

A model is a table: for each of the 3**9 boards, how good it is for the player who just moved (-1 … 1). Self-play
looks one move ahead in that table and explores a little; training moves each visited board's value towards the
results seen; evaluation plays pairs of games from the same opening, each side starting once.

Run by an agent as `python tictactoe.py STAGE`; see docs/tutorial/your-own-game.md.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator

import blake3
import numpy as np

from gamekeeper.client import Job

BOARDS = 3**9
LINES = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (0, 3, 6), (1, 4, 7), (2, 5, 8), (0, 4, 8), (2, 4, 6))
Board = tuple[int, ...]  # nine cells: 0 empty, 1 the first player, 2 the second
Player = Callable[[Board, int], int]  # (board, side to move) -> cell


def index(board: Board, side: int) -> int:
    """Number of the board as `side` sees it: own stones 1, the other's 2."""
    number = 0
    for cell in board:
        number = number * 3 + (0 if cell == 0 else 1 if cell == side else 2)
    return number


def won(board: Board, side: int) -> bool:
    """Whether `side` has three in a row."""
    return any(all(board[cell] == side for cell in line) for line in LINES)


def place(board: Board, cell: int, side: int) -> Board:
    """The board after `side` takes `cell`."""
    return (*board[:cell], side, *board[cell + 1 :])


def empty_cells(board: Board) -> list[int]:
    """Cells that may be taken."""
    return [cell for cell in range(9) if board[cell] == 0]


def greedy(table: np.ndarray, rng: random.Random, explore: float = 0.0) -> Player:
    """A player that takes the move whose resulting board the table likes best; `explore`: share of random moves."""

    def choose(board: Board, side: int) -> int:
        cells = empty_cells(board)
        if rng.random() < explore:
            return rng.choice(cells)
        rng.shuffle(cells)
        return max(cells, key=lambda cell: float(table[index(place(board, cell, side), side)]))

    return choose


def play(players: tuple[Player, Player], opening: list[int]) -> tuple[list[int], float]:
    """Play one game: (moves, result for the first player: 1, 0.5 or 0). The opening moves are given."""
    board: Board = (0,) * 9
    moves: list[int] = []
    for ply in range(9):
        side = ply % 2 + 1
        cell = opening[ply] if ply < len(opening) else players[ply % 2](board, side)
        board = place(board, cell, side)
        moves.append(cell)
        if won(board, side):
            return moves, 1.0 if side == 1 else 0.0
    return moves, 0.5


def positions(moves: list[int], result: float) -> Iterator[tuple[int, float]]:
    """Every board of a game as its mover sees it, with the result in that mover's eyes (-1 … 1)."""
    board: Board = (0,) * 9
    for ply, cell in enumerate(moves):
        side = ply % 2 + 1
        board = place(board, cell, side)
        yield index(board, side), (2 * result - 1) * (1 if side == 1 else -1)


def load(job: Job, role: str) -> np.ndarray:
    """The table of the model handed in as `role`; a model that does not load ends the job."""
    with np.load(job.input(role).path, allow_pickle=False) as arrays:
        table: np.ndarray = arrays["table"]
    if table.shape != (BOARDS,) or table.dtype != np.float32:
        raise SystemExit(f"{role} is not a tic-tac-toe table")
    return table


def found(job: Job) -> None:
    """The founding model: random values, announced as such."""
    table = np.random.default_rng(job.seed).uniform(-0.01, 0.01, BOARDS).astype(np.float32)
    model = job.publish_model(
        "table.npz", lambda out: np.savez(out, table=table),
        architecture="table", parent=None, steps=0, loss=None, weights=BOARDS,
    )  # fmt: skip
    job.hand_in(model=model, weights=BOARDS)


def selfplay(job: Job) -> None:
    """Play games with the champion and publish every board with its result."""
    rng = random.Random(job.seed)
    player = greedy(load(job, "model"), rng, job.parameter("explore", float))
    boards: list[int] = []
    outcomes: list[float] = []
    game_of: list[int] = []
    games = 0
    for number in range(job.wanted("games", int)):
        if job.should_stop():
            break
        for board, outcome in positions(*play((player, player), [])):
            boards.append(board)
            outcomes.append(outcome)
            game_of.append(number)
        games += 1
        job.progress(games)
    if games == 0:
        raise SystemExit("stopped before the first game")
    arrays = {
        "boards": np.array(boards, np.int32),
        "outcomes": np.array(outcomes, np.float32),
        "game": np.array(game_of, np.int32),
    }
    shard = job.publish_shard(
        "games.npz", lambda out: np.savez_compressed(out, **arrays), games=games, samples=len(boards)
    )
    job.hand_in(games=games, samples=len(boards), shards=[shard])


def train(job: Job) -> None:
    """Move the parent's values towards the results in the shards."""
    table = load(job, "model").copy()
    rate = job.parameter("rate", float)
    samples = steps = 0
    loss = 0.0
    for shard in job.inputs("shards"):
        with np.load(shard.path, allow_pickle=False) as arrays:
            boards, outcomes = arrays["boards"], arrays["outcomes"]
        total = np.bincount(boards, weights=outcomes, minlength=BOARDS)
        seen = np.bincount(boards, minlength=BOARDS)
        visited = seen > 0
        table[visited] += rate * (total[visited] / seen[visited] - table[visited]).astype(np.float32)
        loss = float(np.mean((table[boards] - outcomes) ** 2))
        samples += len(boards)
        steps += 1
        job.progress(steps, loss=loss)
    parent = job.input("model").hash
    model = job.publish_model(
        "table.npz", lambda out: np.savez(out, table=table),
        architecture="table", parent=parent, steps=steps, loss=loss, weights=BOARDS,
    )  # fmt: skip
    job.hand_in(steps=steps, samples=samples, loss=loss, model=model, parent=parent)


def opponent(job: Job, rng: random.Random) -> Player:
    """The player asked for: another model, random moves, or the candidate itself."""
    name = job.wanted("opponent", str)
    if name == "random":
        return lambda board, side: rng.choice(empty_cells(board))
    if name == "self":
        return greedy(load(job, "candidate"), rng)
    return greedy(load(job, "opponent"), rng)


def evaluate(job: Job) -> None:
    """Play pairs: one opening, the candidate starting once and answering once."""
    candidate_table = load(job, "candidate")
    pairs: list[list[object]] = []
    first_pair = job.wanted("first_pair", int)
    for number in range(first_pair, first_pair + job.wanted("pairs", int)):
        if job.should_stop():
            break
        rng = random.Random(number)
        opening = rng.sample(range(9), 2)
        # Both sides draw from generators seeded alike in both games, so that a model
        # playing itself scores exactly one point in every pair.
        first_moves, first = play(
            (greedy(candidate_table, random.Random(number)), opponent(job, random.Random(~number))), opening
        )
        second_moves, second = play(
            (opponent(job, random.Random(number)), greedy(candidate_table, random.Random(~number))), opening
        )
        replay = blake3.blake3(bytes([*first_moves, 9, *second_moves])).hexdigest()
        pairs.append([number, first, 1.0 - second, replay])
        job.progress(2 * len(pairs))
    if not pairs:
        raise SystemExit("stopped before the first pair")
    job.hand_in(games=2 * len(pairs), pairs=pairs)


STAGES: dict[str, Callable[[Job], None]] = {
    "found": found,
    "selfplay": selfplay,
    "train": train,
    "evaluate": evaluate,
}

if __name__ == "__main__":
    STAGES[sys.argv[1]](Job.from_environment())
