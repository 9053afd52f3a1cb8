"""The fast rules agree with plain ones on every position that random play reaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.demo import board
from tests.thoroughness import examples
from tests.unit.demo import connect4_reference as plain


@st.composite
def games(draw: st.DrawFn) -> list[int]:
    """Moves of a game that is not over before its last move."""
    moves: list[int] = []
    for _ in range(draw(st.integers(0, 42))):
        columns = plain.replay(moves)
        if plain.has_four(columns, (len(moves) + 1) % 2):
            break
        moves.append(draw(st.sampled_from(plain.legal(columns))))
    return moves


def cells_of(bits: int) -> set[tuple[int, int]]:
    return {(c, r) for c in range(7) for r in range(6) if bits >> (8 * r + c) & 1}


def winning_cells(columns: plain.Columns, player: int) -> set[tuple[int, int]]:
    """Empty cells which, with a stone floating there, would make four: by trying every line."""
    found = set()
    for c in range(7):
        for r in range(6):
            for dc, dr in ((1, 0), (0, 1), (1, 1), (1, -1)):
                line = [(c + k * dc, r + k * dr) for k in range(4)]
                inside = all(0 <= x < 7 and 0 <= y < 6 for x, y in line)
                stones = [plain.stone(columns, x, y) for x, y in line]
                if inside and stones.count(player) == 3 and stones.count(None) == 1:
                    found.add(line[stones.index(None)])
    return found


@examples(60)
@given(games())
def test_rules_agree_with_plain_rules(moves: list[int]) -> None:
    """A wrong shift or mask would give another stone set, legal move or end of the game."""
    columns, player = plain.replay(moves), len(moves) % 2
    own, mask = board.from_moves(moves)
    stones = {(c, r): s for c in range(7) for r, s in enumerate(columns[c])}
    assert cells_of(int(mask[0])) == set(stones)
    assert cells_of(int(own[0])) == {cell for cell, owner in stones.items() if owner == player}
    assert np.flatnonzero(board.legal(mask)[0]).tolist() == plain.legal(columns)
    assert board.has_four(own ^ mask)[0] == plain.has_four(columns, 1 - player)
    assert board.has_four(own)[0] == plain.has_four(columns, player)
    assert board.is_full(mask)[0] == (not plain.legal(columns))
    assert board.stones_played(mask)[0] == len(moves)
    assert int(mask[0]) & ~board.BOARD == 0


@pytest.mark.unmeasured
@examples(60)
@given(games())
def test_prospects_agree_with_trying_every_move(moves: list[int]) -> None:
    """A wrong threat would make the search overlook a win in one or a forced block."""
    columns, player = plain.replay(moves), len(moves) % 2
    if plain.has_four(columns, 1 - player) or plain.has_four(columns, player):
        return
    prospects = board.Prospects(*board.from_moves(moves))
    assert cells_of(int(prospects.own_completing[0])) == winning_cells(columns, player)
    assert cells_of(int(prospects.their_completing[0])) == winning_cells(columns, 1 - player)
    after = {c: plain.drop(columns, c, player) for c in plain.legal(columns)}
    wins = {c for c, position in after.items() if plain.has_four(position, player)}
    assert {c for c, _ in cells_of(int(prospects.winning[0]))} == wins
    safe = {
        c
        for c, position in after.items()
        if not any(
            plain.has_four(plain.drop(position, d, 1 - player), 1 - player) for d in plain.legal(position)
        )
    }
    assert {c for c, _ in cells_of(int(prospects.safe[0]))} == safe


@examples(60)
@given(games())
def test_features_show_the_position(moves: list[int]) -> None:
    """Planes in another order or orientation would train a net that plays another game."""
    columns, player = plain.replay(moves), len(moves) % 2
    planes = board.features(*board.from_moves(moves))[0]
    assert planes.shape == (board.PLANES, 6, 7)
    assert planes.dtype == np.uint8
    for c in range(7):
        for r in range(6):
            assert planes[0, r, c] == (plain.stone(columns, c, r) == player)
            assert planes[1, r, c] == (plain.stone(columns, c, r) == 1 - player)
            assert planes[4, r, c] == (r == len(columns[c]))


@examples(60)
@given(games())
def test_reflection_commutes_with_play(moves: list[int]) -> None:
    """An asymmetric rule would make mirrored training data lie."""
    own, mask = board.from_moves(moves)
    own_there, mask_there = board.from_moves([6 - column for column in moves])
    assert board.mirror(own) == own_there
    assert board.mirror(mask) == mask_there
    mirrored = board.features(own_there, mask_there)[..., ::-1]
    assert np.array_equal(board.features(own, mask), mirrored)


@pytest.mark.unmeasured
@examples(30)
@given(st.lists(games(), min_size=1, max_size=8))
def test_games_in_a_batch_do_not_touch_each_other(batch: list[list[int]]) -> None:
    """A row that leaks into another would mix up games played side by side."""
    parts = [board.from_moves(moves) for moves in batch]
    own, mask = (np.concatenate([part[k] for part in parts]) for k in (0, 1))
    together = board.features(own, mask)
    for row, part in enumerate(parts):
        assert np.array_equal(together[row], board.features(*part)[0])


@pytest.mark.parametrize(
    ("moves", "reason"),
    [
        ([7], "no column 7"),
        ([-1], "no column -1"),
        ([0] * 7, "column 0 is full"),
        ([0, 1, 0, 1, 0, 1, 0, 2], "over"),
    ],
)
def test_impossible_moves_are_named(moves: list[int], reason: str) -> None:
    """An impossible move taken silently would answer about another position."""
    with pytest.raises(ValueError, match=reason):
        board.from_moves(moves)
