"""Connect Four the slow, plain way, to judge the fast rules and the search by. Boards are lists of columns."""

from __future__ import annotations

from functools import lru_cache

Columns = tuple[tuple[int, ...], ...]
EMPTY: Columns = ((),) * 7


def replay(moves: list[int]) -> Columns:
    """Stones by column, bottom up; 0 for the first player, 1 for the second."""
    columns: list[tuple[int, ...]] = [()] * 7
    for number, column in enumerate(moves):
        columns[column] = (*columns[column], number % 2)
    return tuple(columns)


def legal(columns: Columns) -> list[int]:
    return [c for c in range(7) if len(columns[c]) < 6]


def stone(columns: Columns, column: int, row: int) -> int | None:
    if not (0 <= column < 7 and 0 <= row < len(columns[column])):
        return None
    return columns[column][row]


LINES = [
    [(c + k * dc, r + k * dr) for k in range(4)]
    for c in range(7)
    for r in range(6)
    for dc, dr in ((1, 0), (0, 1), (1, 1), (1, -1))
    if c + 3 * dc < 7 and 0 <= r + 3 * dr < 6
]


@lru_cache(1 << 17)
def has_four(columns: Columns, player: int) -> bool:
    cells = {(c, r) for c, column in enumerate(columns) for r, owner in enumerate(column) if owner == player}
    return any(cells.issuperset(line) for line in LINES)


def drop(columns: Columns, column: int, player: int) -> Columns:
    return (*columns[:column], (*columns[column], player), *columns[column + 1 :])


@lru_cache(1 << 17)
def result_within(columns: Columns, player: int, plies: int) -> int:
    """1 when `player`, to move, can force a win within `plies` moves, -1 when it loses by force within them, else 0."""
    if has_four(columns, 1 - player):
        return -1
    if plies == 0 or not legal(columns):
        return 0
    best = -1
    for c in legal(columns):
        best = max(best, -result_within(drop(columns, c, player), 1 - player, plies - 1))
        if best == 1:
            break
    return best
