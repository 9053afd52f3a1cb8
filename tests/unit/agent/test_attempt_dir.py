"""What jobs write is read with suspicion: anything may stand there, and the agent goes on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from gamekeeper.agent.attempt_dir import AttemptDir
from gamekeeper.agent.endings import Exit, judge
from gamekeeper.agent.messages import SealedFile
from gamekeeper.agent.spool import UnusableSeal, scan
from gamekeeper.agent.warden import parse_deadline
from gamekeeper.core.jobs import EndReason
from gamekeeper.protocol import AttemptProgress, Finish, InputFile, SealArtifact
from tests.thoroughness import examples
from tests.unit.agent.core_world import grant

TEXT = st.text(st.characters(exclude_categories=()), max_size=50)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
NEAR_SEALS = st.fixed_dictionaries(
    {},
    optional={
        "artifact": st.sampled_from(["shard", "model", "weapon", 3]) | JSON,
        "bytes": st.sampled_from([5, 4, 0, -1, True]) | JSON,
        "hash": st.sampled_from([None, "0" * 64, "x"]) | JSON,
        "metadata": st.just({"games": 1}) | JSON,
    },
)
NEAR_PROGRESS = st.fixed_dictionaries(
    {"units": st.integers() | JSON},
    optional={"note": TEXT | JSON, "figures": st.dictionaries(TEXT, st.floats() | st.integers() | JSON)},
)  # fmt: skip
anything = settings(examples(100), suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def place(tmp_path: Path) -> AttemptDir:
    place = AttemptDir(tmp_path / "1")
    place.make(grant(1))
    return place


@anything
@given(data=st.binary(max_size=300) | NEAR_PROGRESS.map(lambda value: json.dumps(value).encode()))
def test_any_progress_fits_a_beat(place: AttemptDir, data: bytes) -> None:
    """A beat that cannot be built is no beat, and costs the lease of all jobs."""
    (place.job / "progress.json").write_bytes(data)
    progress = place.progress()
    if progress is not None:
        AttemptProgress(
            attempt=1, token=1, units=progress.units, note=progress.note, figures=dict(progress.figures)
        ).model_dump_json()


@anything
@given(data=st.binary(max_size=300) | NEAR_SEALS.map(lambda value: json.dumps(value).encode()))
def test_any_seal_is_honoured_or_named(place: AttemptDir, data: bytes) -> None:
    """A seal must lead to an upload that can be declared, or to a word about it: never to an error."""
    (place.outbox / "a.npz").write_bytes(b"12345")
    (place.outbox / "a.npz.seal").write_bytes(data)
    (found,) = scan(place.outbox, set())
    if isinstance(found, SealedFile):
        assert found.bytes == 5
        SealArtifact(
            kind=found.kind, name=found.name, bytes=found.bytes, metadata=dict(found.metadata)
        ).model_dump_json()
    else:
        assert isinstance(found, UnusableSeal)
        assert found.why
    assert scan(place.outbox, {"a.npz"}) == []


@anything
@given(data=st.binary(max_size=300) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_receipt_is_json_or_told(place: AttemptDir, data: bytes) -> None:
    """NaN or half a file must not reach the coordinator as a receipt."""
    (place.job / "receipt.json").write_bytes(data)
    receipt, problem = place.receipt()
    if problem:
        assert receipt is None
    Finish(token=1, reason=EndReason.FINISHED, detail=problem, receipt=receipt).model_dump_json()


def test_hostile_files_do_not_end_the_agent(place: AttemptDir) -> None:
    """Deep nesting, huge numbers, pipes, links and giants are told, not followed."""
    for text in (
        "[" * 100_000, "[" * 200 + "]" * 200, "[" * 900 + "]" * 900, "1e999", "-Infinity", "9" * 5000,
        '"\\ud800"', '{"\\udfff": 1}',
    ):  # fmt: skip
        (place.job / "receipt.json").write_text(text)
        assert place.receipt()[0] is None
        assert place.receipt()[1]
    (place.job / "receipt.json").unlink()
    os.mkfifo(place.job / "receipt.json")
    assert "not a plain file" in place.receipt()[1]
    (place.job / "receipt.json").unlink()
    os.symlink("/etc/hostname", place.job / "receipt.json")
    assert place.receipt()[1]
    (place.job / "receipt.json").unlink()
    with (place.job / "receipt.json").open("wb") as file:
        file.truncate(1 << 40)
    assert "longer than" in place.receipt()[1]


def test_names_that_leave_the_outbox_are_not_files(place: AttemptDir) -> None:
    """A seal must not make the agent ship what is not the job's."""
    for name in (b".hidden", b"a b", "ä".encode(), b"\xff\xfe", b"new\nline"):
        for path in (name, name + b".seal"):
            with open(os.path.join(os.fsencode(place.outbox), path), "wb") as file:
                file.write(b"12345")
    found = scan(place.outbox, set())
    assert len(found) == 5
    for item in found:
        assert isinstance(item, UnusableSeal)
        f"{item.name} {item.why}".encode()


@given(stop=st.floats(0, 1e9), later=st.floats(0, 1e6))
def test_a_deadline_is_read_as_it_was_written(stop: float, later: float) -> None:
    """The two ends of the record are kept by two modules that share no code."""
    text = f"{stop:.3f} {stop + later:.3f}"
    found = parse_deadline(f"{text} {text}   \n".encode())
    assert found == pytest.approx((stop, stop + later), abs=0.001)
    for cut in range(len(text) + 1):
        assert parse_deadline(f"{text} {text}"[: len(text) + cut].encode()) in (None, found)


def test_the_deadline_file_is_written_in_place(place: AttemptDir) -> None:
    """A full disk must not keep a lease from being renewed: the file may not grow or move."""
    place.write_deadline(1.0, 2.0)
    before = (place.root / "deadline").stat()
    place.write_deadline(123456789.123, 123456790.5)
    after = (place.root / "deadline").stat()
    assert (before.st_ino, before.st_size) == (after.st_ino, after.st_size)
    assert parse_deadline((place.root / "deadline").read_bytes()) == (123456789.123, 123456790.5)


def test_parameters_hold_what_the_contract_says(place: AttemptDir) -> None:
    """A job in any language reads this file: its shape is the contract."""
    file = InputFile(hash="a" * 64, bytes=3, name="../../evil.np/z.npz", metadata={"steps": 1})
    odd = InputFile(hash="b" * 64, bytes=3, name="x.n/../p", metadata={})
    given_ = grant(1).model_copy(update={"inputs": {"model": [file], "shards": [odd]}})
    place.write_parameters(given_, 2)
    document = json.loads((place.job / "parameters.json").read_text())
    assert document["inputs"]["model"] == [
        {"path": f"inputs/{'a' * 64}.npz", "hash": "a" * 64, "bytes": 3, "metadata": {"steps": 1}}
    ]
    assert document["inputs"]["shards"][0]["path"] == f"inputs/{'b' * 64}"
    assert set(document) == {
        "protocol", "job", "attempt", "token", "kind", "line", "seed", "threads", "grace_s", "parameters", "wanted",
        "inputs",
    }  # fmt: skip
    assert document["threads"] == 2


GOOD: JsonValue = {"games": 1}


@pytest.mark.parametrize(
    ("seen", "ordered", "reason"),
    [
        (Exit("exited", 0, receipt=GOOD), None, EndReason.FINISHED),
        (Exit("exited", 0), None, EndReason.FINISHED),
        (Exit("exited", 1), None, EndReason.OWN_ERROR),
        (Exit("exited", 1, receipt=GOOD), None, EndReason.OWN_ERROR),
        (Exit("exited", 1, short_of_disk=True), None, EndReason.SPOOL_FULL),
        (Exit("exited", None, 9), None, EndReason.KILLED),
        (Exit("exited", None, 11), None, EndReason.OWN_ERROR),
        (Exit("exited", 1), EndReason.STOP_REQUESTED, EndReason.STOP_REQUESTED),
        (Exit("stopped", None, 9), EndReason.NODE_GOING_AWAY, EndReason.NODE_GOING_AWAY),
        (Exit("stopped", None, 15), None, EndReason.NODE_GOING_AWAY),
        (Exit("stopped", 0, receipt=GOOD), EndReason.STOP_REQUESTED, EndReason.FINISHED),
        (Exit("deadline", None, 9), None, EndReason.LEASE_EXPIRED),
        (Exit("deadline", 0, receipt=GOOD), None, EndReason.FINISHED),
        (Exit("time-limit", None, 15), None, EndReason.TIME_LIMIT),
        (Exit("time-limit", None, 15), EndReason.STOP_REQUESTED, EndReason.TIME_LIMIT),
        (Exit("vanished"), None, EndReason.KILLED),
        (Exit("vanished", receipt=GOOD), None, EndReason.KILLED),
        (Exit("cannot-start", 0, receipt=GOOD), None, EndReason.CANNOT_START),
    ],
)
def test_every_kind_of_end_has_its_reason(seen: Exit, ordered: EndReason | None, reason: EndReason) -> None:
    """A wrong reason charges the wrong budget: the job's for the machine's fault, or the reverse."""
    assert judge(seen, ordered).reason is reason
