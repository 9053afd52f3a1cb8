"""The rules of Connect Four for many games at once, on bitboards.

A position is two int64 words: `own`, the stones of the side to move, and `mask`, the stones of both. The cell in
row r (0 is the bottom) and column c is bit 8 r + c. The eighth bit of each row stays empty, so that a line shifted
sideways never wraps into the next row; rows 6 and 7 stay empty for the same reason. The shift-and-mask tests for
lines follow the well-known bitboard technique (J. Tromp, "John's Connect Four Playground").

All functions take and return arrays of one dimension, one entry a game, unless they say otherwise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

COLUMNS = 7
ROWS = 6
CELLS = COLUMNS * ROWS
PLANES = 5
FEATURES = PLANES * CELLS

Boards = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Columns = npt.NDArray[np.intp]

_STRIDE = 8
_BOTTOM = 0x7F
BOARD = sum(_BOTTOM << (_STRIDE * row) for row in range(ROWS))
_DIRECTIONS = (1, _STRIDE - 1, _STRIDE, _STRIDE + 1)
COLUMN_CELLS: Boards = np.array(
    [sum(1 << (_STRIDE * row + column) for row in range(ROWS)) for column in range(COLUMNS)], dtype=np.int64
)
COLUMNS_OF_BYTE: Bytes = np.array(
    [[(byte >> column) & 1 for column in range(COLUMNS)] for byte in range(256)], dtype=np.uint8
)
_MIRROR_OF_BYTE: Bytes = np.array(
    [
        sum(((byte >> column) & 1) << (COLUMNS - 1 - column) for column in range(COLUMNS))
        for byte in range(256)
    ],
    dtype=np.uint8,
)


def empty(games: int) -> tuple[Boards, Boards]:
    """The starting position, `games` times: (own, mask)."""
    return np.zeros(games, np.int64), np.zeros(games, np.int64)


def landing_cells(mask: Boards) -> Boards:
    """The cells a stone would land on, one in each column that is not full."""
    return ((mask << _STRIDE) | _BOTTOM) & ~mask & BOARD


def legal(mask: Boards) -> Bytes:
    """Legal moves as 0 or 1, shape [games, 7]."""
    return COLUMNS_OF_BYTE[columns_byte(landing_cells(mask))]


def columns_byte(cells: Boards) -> Boards:
    """One bit a column that holds any of `cells`: bit c of a number below 128."""
    folded = cells | (cells >> 32)
    folded = folded | (folded >> 16)
    return (folded | (folded >> 8)) & _BOTTOM


def drop(own: Boards, mask: Boards, column: Columns) -> tuple[Boards, Boards]:
    """The position after the side to move drops a stone, seen by the other side.

    The columns must be legal: a full column would leave the position as it is, with the sides exchanged.
    """
    return own ^ mask, mask | (landing_cells(mask) & COLUMN_CELLS[column])


def has_four(stones: Boards) -> Flags:
    """Whether four stones stand in a line."""
    found = np.zeros(stones.shape, np.int64)
    for step in _DIRECTIONS:
        pairs = stones & (stones >> step)
        found |= pairs & (pairs >> (2 * step))
    return np.not_equal(found, 0)


def completing_cells(stones: Boards, mask: Boards) -> Boards:
    """The empty cells, reachable now or later, on which one more of `stones` would make four in a line."""
    cells = np.zeros(stones.shape, np.int64)
    for step in _DIRECTIONS:
        up, down = stones << step, stones >> step
        up2, down2 = up & (stones << (2 * step)), down & (stones >> (2 * step))
        cells |= (up2 & (stones << (3 * step))) | (up2 & down)
        cells |= (down2 & (stones >> (3 * step))) | (down2 & up)
    return cells & (BOARD & ~mask)


def mirror(cells: Boards) -> Boards:
    """The cells reflected left to right."""
    return _MIRROR_OF_BYTE[cells.astype("<i8").view(np.uint8)].view("<i8").astype(np.int64)


def is_full(mask: Boards) -> Flags:
    """Whether no move is left."""
    return np.equal(mask, BOARD)


def stones_played(mask: Boards) -> npt.NDArray[np.int64]:
    """How many stones stand on the board."""
    return np.bitwise_count(mask).astype(np.int64)


class Prospects:
    """What is decided within the next two moves, and the bitboards that the network sees.

    `winning`: landing cells that make four for the side to move. `safe`: landing cells after which the
    other side has no four in one move. When there is no winning cell, no safe cell and the board is not full, the
    game is lost.
    """

    __slots__ = ("landing", "mask", "own", "own_completing", "safe", "their_completing", "winning")

    def __init__(self, own: Boards, mask: Boards) -> None:
        theirs = own ^ mask
        self.own, self.mask = own, mask
        self.landing = landing_cells(mask)
        self.own_completing = completing_cells(own, mask)
        self.their_completing = completing_cells(theirs, mask)
        self.winning = self.landing & self.own_completing
        threatened = self.landing & self.their_completing
        several = (threatened & (threatened - 1)) != 0
        must = np.where(threatened == 0, self.landing, np.where(several, 0, threatened))
        self.safe = must & ~(self.their_completing >> _STRIDE)

    def packed(self) -> Bytes:
        """The five planes as bits, shape [games, 5, 6, 8]; the eighth column is always 0."""
        theirs = self.own ^ self.mask
        words = np.empty((len(self.own), PLANES), np.dtype("<i8"))
        words[:, 0] = self.own
        words[:, 1] = theirs
        words[:, 2] = self.own_completing
        words[:, 3] = self.their_completing
        words[:, 4] = self.landing
        rows = words.view(np.uint8).reshape(len(self.own), PLANES, 8)[:, :, :ROWS]
        bits = np.unpackbits(rows, axis=-1, bitorder="little")
        return bits.reshape(len(self.own), PLANES, ROWS, _STRIDE)


def features(own: Boards, mask: Boards) -> Bytes:
    """What the network sees, 0 or 1, shape [games, 5, 6, 7].

    Planes: own stones, their stones, cells that complete four for us, cells that complete four for them, landing
    cells. Row 0 is the bottom.
    """
    return np.ascontiguousarray(Prospects(own, mask).packed()[..., :COLUMNS])


def from_moves(moves: list[int]) -> tuple[Boards, Boards]:
    """The position (arrays of one entry) after the moves from the empty board.

    Raises ValueError, naming the move, when a column is out of range or full, or the game was already over.
    """
    own, mask = empty(1)
    for number, column in enumerate(moves, start=1):
        if not 0 <= column < COLUMNS:
            raise ValueError(f"move {number}: there is no column {column}, columns are 0 to {COLUMNS - 1}")
        if has_four(own ^ mask)[0]:
            raise ValueError(f"move {number}: the game is over, four in a line stand after move {number - 1}")
        if not legal(mask)[0, column]:
            raise ValueError(f"move {number}: column {column} is full")
        own, mask = drop(own, mask, np.array([column]))
    return own, mask
