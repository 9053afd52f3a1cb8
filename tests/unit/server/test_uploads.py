"""Files at the door: nothing is visible that was not verified, and no disturbance of an upload can change that."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.artifacts import ArtifactKind, Upload
from gamekeeper.core.errors import Corrupt, NotAllowed, NotFound, Refused, StaleToken, StorageFull, UsageError
from gamekeeper.core.jobs import EndReason
from gamekeeper.protocol import Enrol, Grant, SealArtifact, Sealed
from gamekeeper.server.uploads import TooLarge
from gamekeeper.store import artifacts
from tests.unit.server.rig import LINE, Rig, digest, run, shard


def seal(rig: Rig, upload: Upload, size: int, **metadata: int) -> Sealed:
    message = SealArtifact(kind=ArtifactKind.SHARD, name="s.npz", bytes=size, metadata=dict(metadata))
    return run(rig.here.uploads.seal(rig.node_id, upload, message))


def begin(rig: Rig, data: bytes) -> Upload:
    grant = rig.attempt()
    return Upload(grant.attempt, grant.token, digest(data))


def visible(rig: Rig, data: bytes) -> bool:
    known = rig.store.read(lambda r: artifacts.get(r, digest(data))) is not None
    assert known == rig.files.path(digest(data)).exists(), "catalogue and folder disagree"
    return known


def test_a_good_shard_becomes_visible_once(rig: Rig) -> None:
    """A shard could be counted twice by a repeated seal, or not at all."""
    data, grant = shard(2, 6), rig.attempt()
    assert rig.hand_in(grant, data, games=2, samples=6).accepted
    assert rig.hand_in(grant, data, games=2, samples=6).accepted
    counts = rig.store.read(lambda r: artifacts.line_counts(r, LINE))
    assert (counts.games, counts.samples, counts.files) == (2, 6, 1)
    assert run(rig.here.uploads.download(digest(data))).read_bytes() == data


def test_nothing_is_visible_before_the_seal(rig: Rig) -> None:
    """Bytes that were only uploaded could be read by others."""
    data = shard()
    upload = begin(rig, data)
    run(rig.here.uploads.append(rig.node_id, upload, 0, data))
    assert not visible(rig, data)
    with pytest.raises(NotFound):
        run(rig.here.uploads.download(digest(data)))


@settings(max_examples=40)
@given(
    cuts=st.lists(st.integers(0, 400), max_size=6),
    order=st.randoms(use_true_random=False),
    repeats=st.integers(1, 3),
)
def test_any_order_and_repetition_of_chunks_gives_the_same_file(
    cuts: list[int], order: Random, repeats: int
) -> None:
    """Reordered, repeated or overlapping chunks could build another file, or one that can never be sealed."""
    with TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        rig.join()
        data = shard()
        upload = begin(rig, data)
        edges = sorted({0, len(data), *(min(cut * 3, len(data)) for cut in cuts)})
        pieces = [(a, data[a : min(b + 7, len(data))]) for a, b in pairwise(edges)] * repeats
        order.shuffle(pieces)
        for offset, piece in pieces:
            run(rig.here.uploads.append(rig.node_id, upload, offset, piece))
        have = run(rig.here.uploads.state(rig.node_id, upload)).offset
        while have < len(data):
            have = run(rig.here.uploads.append(rig.node_id, upload, have, data[have : have + 100])).offset
        assert seal(rig, upload, len(data), games=2, samples=6).accepted
        assert rig.files.path(digest(data)).read_bytes() == data


def test_a_truncated_upload_goes_on_where_it_stopped(rig: Rig) -> None:
    """A broken transfer could be sealed short, or have to start over."""
    data = shard()
    upload = begin(rig, data)
    run(rig.here.uploads.append(rig.node_id, upload, 0, data[:100]))
    with pytest.raises(Refused, match="100 of the"):
        seal(rig, upload, len(data), games=2, samples=6)
    again = rig.restarted()
    state = run(again.here.uploads.state(again.node_id, upload))
    assert (state.offset, state.complete) == (100, False)
    run(again.here.uploads.append(again.node_id, upload, 100, data[100:]))
    assert seal(again, upload, len(data), games=2, samples=6).accepted
    assert run(again.here.uploads.state(again.node_id, upload)).complete


def test_other_bytes_under_a_hash_are_dropped(rig: Rig) -> None:
    """A transfer error could put wrong bytes under a good name, or block the name for ever."""
    data = shard()
    upload = begin(rig, data)
    run(rig.here.uploads.append(rig.node_id, upload, 0, data[:-1] + b"x"))
    with pytest.raises(Corrupt):
        seal(rig, upload, len(data), games=2, samples=6)
    assert not visible(rig, data)
    assert run(rig.here.uploads.state(rig.node_id, upload)).offset == 0
    run(rig.here.uploads.append(rig.node_id, upload, 0, data))
    assert seal(rig, upload, len(data), games=2, samples=6).accepted


def test_more_bytes_than_declared_are_dropped(rig: Rig) -> None:
    """Bytes behind the declared end could slip through."""
    data = shard()
    upload = begin(rig, data)
    run(rig.here.uploads.append(rig.node_id, upload, 0, data + b"tail"))
    with pytest.raises(Corrupt):
        seal(rig, upload, len(data), games=2, samples=6)
    assert not visible(rig, data)


@pytest.mark.parametrize(
    ("data", "metadata", "problem"),
    [
        (shard(nan=True), {"games": 2, "samples": 6}, "not-finite"),
        (shard(), {"games": 3, "samples": 6}, "games-mismatch"),
        (shard(), {"games": 2, "samples": 7}, "samples-mismatch"),
        (shard(), {"samples": 6}, "manifest"),
        (shard(), {"games": 0, "samples": 6}, "manifest"),
        (b"PK" + bytes(400), {"games": 2, "samples": 6}, "not-zip"),
        (shard()[:-30], {"games": 2, "samples": 6}, "truncated"),
    ],
)
def test_bad_shards_are_refused_and_set_aside(
    rig: Rig, data: bytes, metadata: dict[str, int], problem: str
) -> None:
    """Data that breaks the contract could reach training, or vanish without a trace for the person who looks."""
    grant = rig.attempt()
    verdict = rig.hand_in(grant, data, **metadata)
    assert not verdict.accepted
    assert verdict.problem == problem, verdict
    assert not visible(rig, data)
    kept = rig.folder / "refused" / f"{digest(data)}-{grant.attempt}"
    assert kept.read_bytes() == data
    assert json.loads(Path(f"{kept}.json").read_text())["problem"] == problem
    assert rig.hand_in(grant, data, **metadata) == verdict
    assert rig.store.read(lambda r: artifacts.line_counts(r, LINE)).files == 0


def test_refused_files_do_not_fill_the_disk(rig: Rig) -> None:
    """A producer of bad shards could fill the disk with the evidence."""
    grant = rig.attempt()
    for seed in range(25):
        rig.hand_in(grant, shard(nan=True, seed=seed), games=2, samples=6)
    assert len(list((rig.folder / "refused").iterdir())) == 40


def ended(rig: Rig) -> Grant:
    grant = rig.attempt()
    rig.finish(grant, reason=EndReason.OWN_ERROR, exit_code=1)
    return grant


def test_an_ended_attempt_hands_nothing_in(rig: Rig) -> None:
    """A stale worker could add to an attempt that was given up."""
    grant, data = ended(rig), shard()
    upload = Upload(grant.attempt, grant.token, digest(data))
    for call in (
        lambda: run(rig.here.uploads.state(rig.node_id, upload)),
        lambda: run(rig.here.uploads.append(rig.node_id, upload, 0, data)),
        lambda: seal(rig, upload, len(data), games=2, samples=6),
    ):
        with pytest.raises(StaleToken):
            call()
    assert not visible(rig, data)


def test_a_wrong_token_or_node_changes_nothing(rig: Rig) -> None:
    """Another node, or a guessed token, could write into an attempt."""
    grant, data = rig.attempt(), shard()
    upload = Upload(grant.attempt, grant.token + 1, digest(data))
    with pytest.raises(StaleToken):
        run(rig.here.uploads.append(rig.node_id, upload, 0, data))
    other = run(rig.here.enrol(Enrol(protocol=1, host_name="other", slots=1))).node_id
    right = Upload(grant.attempt, grant.token, digest(data))
    with pytest.raises(NotAllowed):
        run(rig.here.uploads.append(other, right, 0, data))
    with pytest.raises(NotFound):
        run(rig.here.uploads.append(rig.node_id, Upload(99, 1, digest(data)), 0, data))
    assert rig.files.staged(right) == 0


def test_a_file_beyond_the_limit_is_refused_before_it_is_written(rig: Rig) -> None:
    """A huge upload could fill the disk."""
    grant = rig.attempt()
    upload = Upload(grant.attempt, grant.token, "0" * 64)
    with pytest.raises(TooLarge):
        run(rig.here.uploads.append(rig.node_id, upload, rig.files.max_bytes - 1, b"ab"))
    with pytest.raises(UsageError):
        seal(rig, upload, rig.files.max_bytes + 1)
    assert rig.files.staged(upload) == 0


def test_no_room_is_said_and_nothing_is_written(rig: Rig, tmp_path: Path) -> None:
    """A full disk could leave half a chunk behind that counts as arrived."""
    grant = rig.attempt()
    upload = Upload(grant.attempt, grant.token, digest(b"x"))
    rig.files._min_free_bytes = 1 << 62
    with pytest.raises(StorageFull) as error:
        run(rig.here.uploads.append(rig.node_id, upload, 0, b"x"))
    assert error.value.remedy
    assert rig.files.staged(upload) == 0


def test_a_retry_that_makes_the_same_bytes_is_proof_and_counts_once(rig: Rig) -> None:
    """Deterministic self-play repeated after a lost machine could be refused for ever, or counted twice."""
    data = shard()
    first = rig.attempt()
    assert rig.hand_in(first, data, games=2, samples=6).accepted
    rig.finish(first, reason=EndReason.KILLED, exit_code=None)
    rig.clock.advance(100)
    rig.connect(incarnation="b" * 32)
    rig.lease(first.job)
    (second,) = rig.claim()
    assert rig.hand_in(second, data, games=2, samples=6).accepted
    assert rig.finish(second, rig.selfplay_receipt((data, 2, 6))).state == "succeeded"
    assert rig.store.read(lambda r: artifacts.line_counts(r, LINE)).games == 2


def test_start_sweeps_what_no_live_attempt_owns(rig: Rig) -> None:
    """Leftovers of dead uploads could pile up, or a live one be lost in a restart."""
    grant = rig.attempt()
    live, dead = Upload(grant.attempt, grant.token, "1" * 64), Upload(77, 78, "2" * 64)
    for upload in (live, dead):
        rig.files.append(upload, 0, b"abc")
    (rig.folder / "staging" / "stray").write_bytes(b"?")
    assert rig.files.sweep(frozenset({(grant.attempt, grant.token)})) == 2
    assert (rig.files.staged(live), rig.files.staged(dead)) == (3, 0)


@pytest.mark.parametrize("name", ["../etc/passwd", "", "A" * 64, "g" * 64, "1" * 63])
def test_only_hashes_name_files(rig: Rig, name: str) -> None:
    """A name from outside could reach another file."""
    with pytest.raises(UsageError):
        rig.files.path(name)
    with pytest.raises(UsageError):
        rig.files.append(Upload(1, 1, name), 0, b"x")
