"""Self-play gives whole games with search targets, true results and the line's data contract."""

from __future__ import annotations

import io
import itertools
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gamekeeper.demo
from gamekeeper.demo import board, net
from gamekeeper.demo.net import Net
from gamekeeper.demo.search import Search
from gamekeeper.demo.selfplay import Style, Table, write_shard
from gamekeeper.demo.training import Samples
from tests.unit.demo import connect4_reference as plain

NETWORK = Net(net.new_weights(np.random.default_rng(5), 16, 2))
LINE: dict[str, Any] = tomllib.loads((Path(gamekeeper.demo.__file__).parent / "connect4.toml").read_text())[
    "lines"
]["connect4"]


def played(games: int, seed: int, search_share: float = 0.5, noise: float = 0.25) -> Table:
    style = Style(Search(16, noise=noise), search_share=search_share)
    table = Table(NETWORK, style, games, np.random.default_rng(seed))
    while table.advance():
        pass
    assert table.finished == games
    return table


def shard_bytes(table: Table) -> bytes:
    file = io.BytesIO()
    write_shard(file, *table.samples())
    return file.getvalue()


def breaches(arrays: dict[str, npt.NDArray[Any]], contract: dict[str, Any]) -> list[str]:
    """What of the contract the arrays break, by plain reading of it."""
    found = []
    if set(arrays) != set(contract["arrays"]):
        found.append(f"arrays {sorted(arrays)}")
    count = len(arrays["values"])
    if count < contract["min_samples"]:
        found.append("too few samples")
    for name, rule in contract["arrays"].items():
        array = arrays[name]
        shape = tuple(count if size == "N" else size for size in rule["shape"])
        if array.dtype.str != rule["dtype"] or array.shape != shape:
            found.append(f"{name} {array.dtype.str} {array.shape}")
        if rule.get("finite") and not np.isfinite(array).all():
            found.append(f"{name} not finite")
        if "min" in rule and (array < rule["min"]).any():
            found.append(f"{name} below")
        if "max" in rule and (array > rule["max"]).any():
            found.append(f"{name} above")
        if (
            "row_sum" in rule
            and (np.abs(array.sum(axis=1) - rule["row_sum"]) > rule["row_sum_tolerance"]).any()
        ):
            found.append(f"{name} sum")
        if "zero_where_not" in rule and (array[arrays[rule["zero_where_not"]] == 0] != 0).any():
            found.append(f"{name} on illegal moves")
    return found


def test_shards_hold_to_the_contract_of_the_line() -> None:
    """A shard the coordinator refuses stops the loop."""
    with np.load(io.BytesIO(shard_bytes(played(24, 1)))) as archive:
        arrays = {name: archive[name] for name in archive.files}
    assert breaches(arrays, LINE["contract"]) == []
    assert set(arrays["game"].tolist()) == set(range(24))


def test_same_seed_same_bytes() -> None:
    """A job tried again with its seed must make the same shard, or its provenance says nothing."""
    assert shard_bytes(played(8, 3)) == shard_bytes(played(8, 3))
    assert shard_bytes(played(8, 3)) != shard_bytes(played(8, 4))


def rows_of_games(samples: Samples, games: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int64]]:
    return [np.flatnonzero(games == game) for game in np.unique(games)]


def test_values_of_a_game_change_sign_with_the_side_to_move() -> None:
    """With results only, neighbours in a game must be opposite, and the last mover's value is the result."""
    samples, games = played(40, 7, search_share=0.0).samples()
    decided = 0
    for rows in rows_of_games(samples, games):
        values = samples.values[rows]
        assert np.array_equal(values[1:], -values[:-1])
        assert set(np.abs(values).tolist()) in ({0.0}, {1.0})
        decided += abs(values[-1]) == 1.0
    assert decided > 30


def test_last_positions_have_the_true_result() -> None:
    """A result for the wrong side teaches the net to lose."""
    samples, games = played(40, 8, search_share=0.0).samples()
    checked = 0
    for rows in rows_of_games(samples, games):
        planes, value = samples.features[rows[-1]], samples.values[rows[-1]]
        player = int(planes[0].sum() + planes[1].sum()) % 2
        heights = (planes[0] + planes[1]).sum(axis=0)
        columns = tuple(
            tuple(player if planes[0, row, column] else 1 - player for row in range(heights[column]))
            for column in range(7)
        )
        truth = plain.result_within(columns, player, 3)
        if truth != 0:
            assert value == truth
            checked += 1
    assert checked > 10


def test_each_game_is_a_line_of_successive_positions() -> None:
    """Samples mixed between games or out of order would break every later audit by game."""
    samples, games = played(30, 9).samples()
    assert (np.diff(games) >= 0).all()
    for rows in rows_of_games(samples, games):
        stones = samples.features[rows, :2].sum(axis=(1, 2, 3))
        assert np.array_equal(np.diff(stones), np.ones(len(rows) - 1))
        for before, after in itertools.pairwise(rows.tolist()):
            check_one_move(samples, before, after)


def check_one_move(samples: Samples, before: int, after: int) -> None:
    """The mover's stones are those it had and one more, in a column that was legal; the other side's are unchanged."""
    ours, theirs = samples.features[before, 0], samples.features[before, 1]
    assert np.array_equal(samples.features[after, 0], theirs)
    added = samples.features[after, 1].astype(int) - ours
    assert sorted(np.unique(added)) == [0, 1]
    assert added.sum() == 1
    assert samples.legal[before, int(added.sum(axis=0).argmax())] == 1


def test_search_targets_are_no_one_hot_copies_of_the_moves() -> None:
    """Targets without the search's doubt would train a copy of the played moves."""
    samples, _ = played(20, 10).samples()
    assert np.mean((samples.policy > 0).sum(axis=1)) > 2.0


@pytest.mark.parametrize("moves", [0, 3, 12])
def test_only_finished_games_are_handed_in(moves: int) -> None:
    """An unfinished game has no result; any value for it would be made up."""
    table = Table(NETWORK, Style(Search(16, noise=0.25)), 30, np.random.default_rng(2))
    for _ in range(moves):
        table.advance()
    samples, games = table.samples()
    assert len(np.unique(games)) == table.finished
    assert len(samples) == len(games)
    assert table.finished < 30


def test_openings_differ_between_games() -> None:
    """A hundred games from one position hold little more than one."""
    table = Table(NETWORK, Style(Search(2, noise=0.25)), 100, np.random.default_rng(2))
    own, mask = table.position
    assert len({(int(o), int(m)) for o, m in zip(own, mask, strict=True)}) > 40
    assert not board.has_four(own ^ mask).any()
