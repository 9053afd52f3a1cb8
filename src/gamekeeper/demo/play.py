"""One move at a time: the network answers positions given as lists of moves."""

from __future__ import annotations

from gamekeeper.demo import board
from gamekeeper.demo.arena import best_columns
from gamekeeper.demo.board import COLUMNS, ROWS
from gamekeeper.demo.net import Net
from gamekeeper.demo.search import Search

SIMULATIONS = 800
SIMULATIONS_MAX = 100_000
LINE_CHARACTERS_MAX = 1000

Answer = dict[str, int | float | str]


def parse_moves(text: str) -> list[int]:
    """The columns of a comma-separated list; an empty text is the empty board. Raises ValueError, naming the entry."""
    if len(text) > LINE_CHARACTERS_MAX:
        raise ValueError(f"the line is longer than {LINE_CHARACTERS_MAX} characters")
    if not text.strip():
        return []
    moves = []
    for number, entry in enumerate(text.split(","), start=1):
        column = entry.strip()
        if not (column.isascii() and column.isdigit() and len(column) == 1):
            raise ValueError(f"move {number}: {column[:20]!r} is not a column from 0 to {COLUMNS - 1}")
        moves.append(int(column))
    return moves


def outcome(moves: list[int]) -> str | None:
    """`won` when the last mover has four in a line, `drawn` when the board is full without, None when the game goes on.

    Raises ValueError for moves that cannot be played.
    """
    own, mask = board.from_moves(moves)
    if board.has_four(own ^ mask)[0]:
        return "won"
    return "drawn" if board.is_full(mask)[0] else None


def answer(moves: str, net: Net, simulations: int = SIMULATIONS) -> Answer:
    """The network's move: {"move": column, "value": v}, with v from -1 to 1 as the side to move sees its prospects.

    `moves` are the columns played from the empty board. A position that cannot be answered (malformed, illegal, or
    already over) gives {"error": why}.
    """
    if not 1 <= simulations <= SIMULATIONS_MAX:
        return {"error": f"simulations must be 1 to {SIMULATIONS_MAX}, not {simulations}"}
    try:
        played = parse_moves(moves)
        over = outcome(played)
    except ValueError as error:
        return {"error": str(error)}
    if over is not None:
        return {"error": f"the game is over: {over} with move {len(played)}"}
    own, mask = board.from_moves(played)
    found = Search(simulations).run(net, own, mask)
    return {"move": int(best_columns(found.policy)[0]), "value": round(float(found.values[0]), 4)}


def picture(moves: list[int], first: str = "X", second: str = "O") -> str:
    """The board as text, top row first, with the column numbers below. Raises ValueError for impossible moves."""
    board.from_moves(moves)
    columns: list[list[str]] = [[] for _ in range(COLUMNS)]
    for number, column in enumerate(moves):
        columns[column].append(second if number & 1 else first)
    lines = [
        " ".join(column[row] if row < len(column) else "." for column in columns)
        for row in reversed(range(ROWS))
    ]
    return "\n".join([*lines, " ".join(map(str, range(COLUMNS)))])
