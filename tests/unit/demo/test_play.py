"""Answers to single positions: strong where the game is decided, and an error instead of a crash for anything else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.demo import net, play
from gamekeeper.demo.net import Net
from tests.thoroughness import examples
from tests.unit.demo import connect4_reference as plain

NETWORK = Net(net.new_weights(np.random.default_rng(5), 16, 2))


def answer(moves: str, simulations: int = 60) -> play.Answer:
    return play.answer(moves, NETWORK, simulations)


@examples(60)
@given(
    st.text(max_size=30)
    | st.lists(st.integers(-1, 8), max_size=45).map(lambda moves: ",".join(map(str, moves)))
)
def test_any_text_gets_an_answer_or_an_error(text: str) -> None:
    """A judge that sends nonsense must not take the player down."""
    found = answer(text, simulations=2)
    if "error" in found:
        assert set(found) == {"error"}
        assert str(found["error"]).strip()
    else:
        columns = plain.replay(play.parse_moves(text))
        assert found["move"] in plain.legal(columns)
        assert -1.0 <= float(found["value"]) <= 1.0


@pytest.mark.parametrize(
    ("moves", "reason"),
    [
        ("7", "no column 7"),
        ("10", "not a column"),
        ("-1", "not a column"),
        ("3,,3", "not a column"),
        ("3;3", "not a column"),
        ("٣", "not a column"),
        ("0,0,0,0,0,0,0", "column 0 is full"),
        ("0,1,0,1,0,1,0", "over: won with move 7"),
        ("0,1,0,1,0,1,0,1", "the game is over"),
        ("0," * 2000, "longer than"),
    ],
)
def test_bad_input_is_named(moves: str, reason: str) -> None:
    """An error that does not say which move is wrong leaves the caller guessing."""
    assert reason in str(answer(moves)["error"])


@pytest.mark.parametrize("simulations", [0, -1, play.SIMULATIONS_MAX + 1])
def test_impossible_simulation_counts_are_refused(simulations: int) -> None:
    """A count of zero would crash, one without bound would never answer."""
    assert "simulations" in str(answer("", simulations)["error"])


def test_the_empty_board_and_spaces_are_understood() -> None:
    """An empty line means the empty board; spaces mean nothing."""
    assert answer("") == answer("  ")
    assert answer(" 3 , 3") == answer("3,3")
    assert answer("3,3\n") == answer("3,3")


def test_wins_and_blocks_whatever_the_network_thinks() -> None:
    """The champion must never miss four in a row, its own or the other side's."""
    assert answer("0,0,1,1,2,2") == {"move": 3, "value": 1.0}
    assert answer("0,6,1,5,2")["move"] == 3
    assert answer("3,0,3,0,3")["move"] == 3


def test_the_value_is_seen_by_the_side_to_move() -> None:
    """A value from the wrong side would call a lost game won."""
    assert answer("0,0,1,1,2,2")["value"] == 1.0
    lost = answer("3,6,2,6,4")
    assert lost["value"] == -1.0


def drawn_game() -> list[int]:
    """A full board without four in a line."""
    rng = np.random.default_rng(0)
    while True:
        moves: list[int] = []
        while True:
            columns, player = plain.replay(moves), len(moves) % 2
            quiet = [
                c for c in plain.legal(columns) if not plain.has_four(plain.drop(columns, c, player), player)
            ]
            if not quiet:
                break
            moves.append(int(rng.choice(quiet)))
        if len(moves) == 42:
            return moves


def test_a_full_board_is_over() -> None:
    """A full board has no move to answer with."""
    moves = drawn_game()
    assert play.outcome(moves) == "drawn"
    assert "drawn with move 42" in str(answer(",".join(map(str, moves)))["error"])
    last = answer(",".join(map(str, moves[:41])))
    assert last == {"move": moves[41], "value": 0.0}


def test_outcome_tells_a_win_from_a_game_going_on() -> None:
    """A win that is not seen lets a person play on after losing."""
    assert play.outcome([]) is None
    assert play.outcome([0, 1, 0, 1, 0, 1]) is None
    assert play.outcome([0, 1, 0, 1, 0, 1, 0]) == "won"


def test_picture_shows_the_stones_where_they_fell() -> None:
    """A board drawn upside down cannot be played from."""
    lines = play.picture([0, 0, 6, 3]).split("\n")
    assert lines[-1] == "0 1 2 3 4 5 6"
    assert lines[-2] == "X . . O . . X"
    assert lines[-3] == "O . . . . . ."
    assert set(lines[0]) == {".", " "}
