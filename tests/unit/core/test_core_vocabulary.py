"""The small rules of the vocabulary: artifacts, matches, sentences, time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.artifacts import ArtifactKind, Manifest, check_manifest
from gamekeeper.core.clock import SystemClock, boot_seconds
from gamekeeper.core.decisions import Decision, Evidence, Verdict, counted
from gamekeeper.core.errors import UsageError
from gamekeeper.core.matches import NO_GAMES, PairResult, PairTally, pentanomial

FINE = Manifest(ArtifactKind.SHARD, "games-0001.npz", "a" * 64, 100, {})


def test_a_sound_manifest_passes() -> None:
    """The edge of the size is allowed."""
    check_manifest(FINE, bytes_allowed=100)
    check_manifest(replace(FINE, bytes=1, name="m"), bytes_allowed=100)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "-rf",
        "a/b",
        "../a",
        "/etc/passwd",
        "a\\b",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "x" * 122,
    ],
)
def test_names_that_are_no_plain_file_are_refused(name: str) -> None:
    """A name from outside becomes a path: nothing may climb out of its folder."""
    with pytest.raises(UsageError, match="plain file name"):
        check_manifest(replace(FINE, name=name), bytes_allowed=100)


@pytest.mark.parametrize("size", [0, -1, 101])
def test_sizes_out_of_bounds_are_refused(size: int) -> None:
    """An empty file is no data; one too large fills the disk."""
    with pytest.raises(UsageError, match="1 to 100 are allowed") as caught:
        check_manifest(replace(FINE, bytes=size), bytes_allowed=100)
    assert "max_bytes" in caught.value.remedy


@pytest.mark.parametrize("value", ["", "A" * 64, "a" * 63, "../" + "a" * 61, "a" * 64 + "\n"])
def test_a_hash_that_is_none_is_refused(value: str) -> None:
    """The hash is a path below the artifact folder."""
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        check_manifest(replace(FINE, hash=value), bytes_allowed=100)


scores = st.sampled_from([0.0, 0.5, 1.0])


@given(st.lists(st.tuples(scores, scores), max_size=40))
def test_the_pentanomial_counts_points_of_pairs(results: list[tuple[float, float]]) -> None:
    """A pair in the wrong class shifts the promotion test."""
    pairs = [PairResult(number, *result, "h") for number, result in enumerate(results)]
    counts = pentanomial(pairs)
    assert counts == tuple(
        sum(first + second == points for first, second in results) for points in (0, 0.5, 1, 1.5, 2)
    )
    tally = PairTally(counts, 3, 99)
    assert tally.pairs == len(results)
    assert tally.played == len(results) + 3
    assert tally.points == sum(first + second for first, second in results)


def test_no_games_is_nothing() -> None:
    """The shared default must be empty."""
    assert (NO_GAMES.pairs, NO_GAMES.played, NO_GAMES.points, NO_GAMES.next_pair) == (0, 0, 0.0, 0)


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 jobs"), (1, "1 job"), (2, "2 jobs"), (12345, "12,345 jobs"), (-1, "-1 jobs")]
)
def test_numbers_agree_with_their_nouns(number: int, words: str) -> None:
    """Sentences are read by people."""
    assert counted(number, "job") == words


def test_decisions_are_values() -> None:
    """A decision replayed must compare equal to the one recorded."""
    one = Decision("p", 1.0, (Verdict("job/1", "r", "s", True, (Evidence("n", 1, 2, "o"),)),))
    assert one == replace(one)
    assert one.actions == ()
    assert Evidence("n", None) == Evidence("n", None, None, "")


def test_the_clock_does_not_run_backwards() -> None:
    """Leases are judged by it."""
    clock = SystemClock()
    readings = [clock.now() for _ in range(200)]
    assert readings == sorted(readings)
    assert abs(clock.now() - time.time()) < 60
    ticks = [clock.monotonic() for _ in range(200)]
    assert ticks == sorted(ticks)


def test_waiting_waits_at_least_as_long() -> None:
    """A sleep cut short turns a delay into a busy loop."""
    clock = SystemClock()
    before = clock.monotonic()
    asyncio.run(clock.sleep(0.01))
    clock.block(0.01)
    assert clock.monotonic() - before >= 0.02


def test_boot_time_is_the_machines() -> None:
    """Deadlines are handed from process to process as boot seconds."""
    first = boot_seconds()
    assert 0 < first <= boot_seconds()
    assert boot_seconds() == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=5)
