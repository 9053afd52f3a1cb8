"""The client's side of the job contract: what a job reads, what it seals, and what it is refused."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper import client
from gamekeeper.client import ClientError, Job
from gamekeeper.core.receipts import BUILT_IN_KINDS, Proof, examine

HASH = "ab" * 32


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "protocol": 1,
        "job": 17,
        "attempt": 23,
        "token": 41,
        "kind": "selfplay",
        "line": "connect4",
        "seed": 99,
        "threads": 1,
        "grace_s": 10.0,
        "parameters": {"simulations": 64, "rate": 0.5, "warm": True, "name": "x", "whole": 2},
        "wanted": {"games": 8},
        "inputs": {},
        **changes,
    }


class Ticks:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


def job_in(folder: Path, ticks: Ticks | None = None, **changes: Any) -> Job:
    return Job(folder, spec(**changes), monotonic=ticks or Ticks())


def hello(file: BinaryIO) -> None:
    file.write(b"hello")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def shard(job: Job, name: str = "a.npz") -> str:
    return job.publish_shard(name, hello, games=2, samples=5)


# --- starting -----------------------------------------------------------------


@pytest.mark.parametrize("environment", [{}, {"GAMEKEEPER_JOB_DIR": ""}])
def test_outside_an_agent_the_error_says_so(environment: dict[str, str]) -> None:
    """A KeyError would leave a person who runs a stage by hand guessing."""
    with pytest.raises(ClientError, match="not started by an agent") as caught:
        Job.from_environment(environment)
    assert "GAMEKEEPER_JOB_DIR" in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("stated", ["relative/dir", "/nonexistent/folder"])
def test_a_job_folder_that_is_none_is_refused(stated: str) -> None:
    """Output written to a guessed place would never be found."""
    with pytest.raises(ClientError, match="not the absolute path of a folder"):
        Job.from_environment({"GAMEKEEPER_JOB_DIR": stated})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1]", "no JSON object"),
        (b"{}", "protocol"),
        (json.dumps(spec(protocol=2)).encode(), "speaks protocol 2"),
        (json.dumps(spec(seed="7")).encode(), "'seed' in parameters.json must be int"),
        (json.dumps(spec(threads=True)).encode(), "'threads' in parameters.json must be int"),
        (json.dumps(spec(inputs=[])).encode(), "'inputs'"),
        (json.dumps(spec(inputs={"model": {}})).encode(), "must be a list"),
        (json.dumps(spec(inputs={"model": ["x"]})).encode(), "must be an object"),
    ],
)
def test_a_parameters_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, reason: str
) -> None:
    """A job that starts with half-read parameters does the wrong work."""
    if content is not None:
        (tmp_path / "parameters.json").write_bytes(content)
    with pytest.raises(ClientError, match=reason):
        Job.from_environment({"GAMEKEEPER_JOB_DIR": str(tmp_path)})


def test_a_huge_parameters_file_is_not_read(tmp_path: Path) -> None:
    """Reading without a bound would let a broken writer take the machine's memory."""
    with (tmp_path / "parameters.json").open("wb") as file:
        file.truncate(client.PARAMETERS_BYTES_MAX + 1)
    with pytest.raises(ClientError, match="larger than"):
        Job.from_environment({"GAMEKEEPER_JOB_DIR": str(tmp_path)})


# --- reading ------------------------------------------------------------------


def test_values_are_read_with_their_types(tmp_path: Path) -> None:
    """A value of another type taken silently would change the job's meaning."""
    job = job_in(tmp_path)
    assert (job.id, job.attempt, job.kind, job.line, job.seed, job.threads) == (
        17,
        23,
        "selfplay",
        "connect4",
        99,
        1,
    )
    assert job.parameter("simulations", int) == 64
    assert job.parameter("rate", float) == 0.5
    whole = job.parameter("whole", float)
    assert (whole, type(whole)) == (2.0, float)
    assert job.parameter("warm", bool) is True
    assert job.parameter("absent", int, 0) == 0
    assert job.parameter("simulations", int, 1) == 64
    assert job.wanted("games", int) == 8


@pytest.mark.parametrize(
    ("name", "kind"),
    [("rate", int), ("name", int), ("warm", int), ("warm", float), ("whole", bool), ("whole", str)],
)
def test_a_wrong_type_is_named_even_with_a_default(tmp_path: Path, name: str, kind: type[int]) -> None:
    """A default in place of a mistyped setting would hide the mistake."""
    for default in (None, kind(1)):
        with pytest.raises(ClientError, match=f"'{name}' in parameters must be {kind.__name__}"):
            job_in(tmp_path).parameter(name, kind, default)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """An invented number of games would be a result nobody asked for."""
    with pytest.raises(ClientError, match="'depth'"):
        job_in(tmp_path).parameter("depth", int)
    with pytest.raises(ClientError, match="wanted holds no 'pairs'"):
        job_in(tmp_path).wanted("pairs", int)


def row(path: str, size: int) -> dict[str, Any]:
    return {"path": path, "hash": HASH, "bytes": size, "metadata": {"games": 3}}


def test_inputs_come_in_order_with_their_metadata(tmp_path: Path) -> None:
    """Shards in another order would make the window hold the oldest samples."""
    for name in ("b", "a"):
        (tmp_path / name).write_bytes(b"12345")
    job = job_in(tmp_path, inputs={"shards": [row("b", 5), row("a", 5)], "model": [row("a", 5)]})
    assert [item.path.name for item in job.inputs("shards")] == ["b", "a"]
    assert job.input("model").path.read_bytes() == b"12345"
    assert job.input("model").metadata == {"games": 3}
    assert job.inputs("other") == []


@pytest.mark.parametrize("role", ["shards", "other"])
def test_the_one_input_must_be_one(tmp_path: Path, role: str) -> None:
    """Taking the first of several models would evaluate the wrong one."""
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(ClientError, match="exactly one input"):
        job_in(tmp_path, inputs={"shards": [row("a", 1), row("a", 1)]}).input(role)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("../x", "leaves the job folder"), ("/etc/passwd", "leaves"), ("a", "holds 1"), ("none", "holds None")],
)
def test_inputs_outside_or_incomplete_are_refused(tmp_path: Path, path: str, reason: str) -> None:
    """A path out of the folder, or a half-fetched file, must not be trained on."""
    (tmp_path / "a").write_bytes(b"1")
    with pytest.raises(ClientError, match=reason):
        job_in(tmp_path, inputs={"model": [row(path, 7)]})


# --- progress and stopping ----------------------------------------------------


def test_progress_is_written_at_most_four_times_a_second(tmp_path: Path) -> None:
    """A write for every step would cost more than the step; a lost last one would understate the work."""
    ticks = Ticks()
    job = job_in(tmp_path, ticks)
    job.progress(1, "start", loss=0.5)
    assert read(tmp_path / "progress.json") == {"units": 1, "note": "start", "figures": {"loss": 0.5}}
    job.progress(2)
    assert read(tmp_path / "progress.json")["units"] == 1
    ticks.time += client.PROGRESS_PERIOD_S
    job.progress(3)
    assert read(tmp_path / "progress.json")["units"] == 3
    job.progress(4)
    job.hand_in(games=2, samples=5, shards=[shard(job)])
    assert read(tmp_path / "progress.json")["units"] == 4


def test_progress_never_falls(tmp_path: Path) -> None:
    """Progress that falls looks like a new attempt to those who watch."""
    job = job_in(tmp_path)
    job.progress(5)
    job.progress(5)
    with pytest.raises(ClientError, match="went back from 5 to 4"):
        job.progress(4)


def test_figures_must_be_numbers_that_json_knows(tmp_path: Path) -> None:
    """NaN in the file would make it unreadable for a strict reader."""
    with pytest.raises(ClientError, match="Progress cannot be written"):
        job_in(tmp_path).progress(1, loss=float("nan"))


def test_the_stop_file_is_seen_at_once(tmp_path: Path) -> None:
    """A job that looks away from the stop file is killed with its work."""
    job = job_in(tmp_path)
    assert not job.should_stop()
    (tmp_path / "stop").touch()
    assert job.should_stop()


def test_sigterm_means_stop_and_not_death(tmp_path: Path) -> None:
    """Without the handler SIGTERM would kill the job before it hands in its games."""
    (tmp_path / "parameters.json").write_text(json.dumps(spec()))
    before = signal.getsignal(signal.SIGTERM)
    try:
        job = Job.from_environment({"GAMEKEEPER_JOB_DIR": str(tmp_path)})
        assert not job.should_stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert job.should_stop()
    finally:
        signal.signal(signal.SIGTERM, before)


# --- outputs ------------------------------------------------------------------


@given(content=st.binary(max_size=3000))
def test_a_seal_states_what_the_file_holds(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """A seal that does not fit its file would have good work refused."""
    folder = tmp_path_factory.mktemp("job")
    job = job_in(folder)
    digest = job.publish_shard("a.npz", lambda file: file.write(content), games=2, samples=5)
    assert digest == blake3(content).hexdigest()
    assert (folder / "outbox/a.npz").read_bytes() == content
    assert read(folder / "outbox/a.npz.seal") == {
        "artifact": "shard",
        "bytes": len(content),
        "hash": digest,
        "metadata": {"games": 2, "samples": 5},
    }
    assert sorted(path.name for path in (folder / "outbox").iterdir()) == ["a.npz", "a.npz.seal"]


def test_the_hash_is_of_the_disk_and_not_of_the_writes(tmp_path: Path) -> None:
    """A writer that seeks back, as ZIP does, would be hashed wrongly by a hash kept while writing."""

    def seeking(file: BinaryIO) -> None:
        file.write(b"xxxx")
        file.seek(0)
        file.write(b"ab")

    assert job_in(tmp_path).publish_shard("a", seeking, games=1, samples=1) == blake3(b"abxx").hexdigest()


def test_the_seal_comes_after_the_data(tmp_path: Path) -> None:
    """A seal beside data that is not there yet would be shipped as truth."""
    seen: list[list[str]] = []

    def looking(file: BinaryIO) -> None:
        seen.append(sorted(path.name for path in (tmp_path / "outbox").iterdir()))
        file.write(b"1")

    job_in(tmp_path).publish_shard("a.npz", looking, games=1, samples=1)
    assert seen == [[".a.npz.part"]]


def test_a_failing_writer_leaves_nothing_sealed(tmp_path: Path) -> None:
    """Half an output with a seal would be half a truth."""

    def failing(file: BinaryIO) -> None:
        file.write(b"1")
        raise OSError(28, "No space left on device")

    job = job_in(tmp_path)
    with pytest.raises(ClientError, match="No space left") as caught:
        job.publish_shard("a.npz", failing, games=1, samples=1)
    assert "free space" in caught.value.remedy
    assert list((tmp_path / "outbox").iterdir()) == []
    assert shard(job)


@pytest.mark.parametrize("name", ["", ".a", "a/b", "../a", "a.seal", "a.part", "a\n", "ü", "x" * 200])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    """A name with a slash could overwrite the receipt or leave the folder."""
    with pytest.raises(ClientError, match="cannot be the name"):
        shard(job_in(tmp_path), name)


def test_an_output_is_never_overwritten(tmp_path: Path) -> None:
    """Replacing a sealed file would change what a hash already promised."""
    job = job_in(tmp_path)
    shard(job)
    with pytest.raises(ClientError, match="already published"):
        shard(job)


def test_models_and_matches_carry_their_metadata(tmp_path: Path) -> None:
    """A model without its parent and loss cannot be traced."""
    job = job_in(tmp_path)
    job.publish_model("m.npz", hello, architecture="mlp", parent=HASH, steps=5, loss=0.25, weights=7)
    job.publish_matches("g.ndjson", hello, pairs=3)
    job.publish_checkpoint("c.npz", hello, steps=4)
    metadata = {"architecture": "mlp", "parent": HASH, "steps": 5, "loss": 0.25, "weights": 7}
    seals = [read(tmp_path / f"outbox/{name}.seal") for name in ("m.npz", "g.ndjson", "c.npz")]
    assert [(seal["artifact"], seal["metadata"]) for seal in seals] == [
        ("model", metadata),
        ("matches", {"pairs": 3}),
        ("checkpoint", {"steps": 4}),
    ]


@pytest.mark.parametrize(("games", "samples"), [(0, 5), (2, 0), (-1, 5), (True, 5)])
def test_empty_outputs_are_refused(tmp_path: Path, games: int, samples: int) -> None:
    """A shard of nothing is no evidence."""
    with pytest.raises(ClientError, match="integer above 0"):
        job_in(tmp_path).publish_shard("a", hello, games=games, samples=samples)
    assert not (tmp_path / "outbox").exists()


# --- receipts -----------------------------------------------------------------


def founder(job: Job) -> str:
    return job.publish_model("m", hello, architecture="mlp", parent=None, steps=0, loss=None, weights=4)


def evidence_of(job: Job) -> dict[str, Any]:
    if job.kind == "found":
        return {"model": founder(job), "weights": 4}
    if job.kind == "selfplay":
        return {"games": 2, "samples": 5, "shards": [shard(job)]}
    if job.kind == "train":
        return {
            "steps": 3,
            "samples": 5,
            "loss": 0.5,
            "model": founder(job),
            "parent": HASH,
        }
    if job.kind == "evaluate":
        return {"games": 2, "pairs": [[7, 1, 0.5, HASH]]}
    return {"summary": "done"}


@pytest.mark.parametrize("kind", sorted(BUILT_IN_KINDS))
def test_a_receipt_accepted_here_is_good_there(tmp_path: Path, kind: str) -> None:
    """A receipt the coordinator calls hollow should have failed in the job, where the cause is known."""
    job = job_in(tmp_path, kind=kind)
    job.hand_in(**evidence_of(job))
    receipt = read(tmp_path / "receipt.json")
    assert examine(BUILT_IN_KINDS[kind], receipt).proof is Proof.GOOD


@pytest.mark.parametrize("kind", sorted(BUILT_IN_KINDS))
def test_a_receipt_lacking_a_field_is_not_written(tmp_path: Path, kind: str) -> None:
    """A default for a missing field is how failures came to look like success."""
    job = job_in(tmp_path, kind=kind)
    evidence = evidence_of(job)
    for name in evidence:
        with pytest.raises(ClientError, match=name):
            job.hand_in(**{key: value for key, value in evidence.items() if key != name})
    with pytest.raises(ClientError, match="extra"):
        job.hand_in(**evidence, extra=1)
    assert not (tmp_path / "receipt.json").exists()


@pytest.mark.parametrize("change", [{"games": 0}, {"shards": []}, {"shards": ["x"]}, {"samples": 1.5}])
def test_hollow_evidence_is_not_written(tmp_path: Path, change: dict[str, Any]) -> None:
    """Zero games with exit code 0 is the failure that looks like success."""
    job = job_in(tmp_path)
    with pytest.raises(ClientError, match="evidence does not hold"):
        job.hand_in(**{**evidence_of(job), **change})
    assert not (tmp_path / "receipt.json").exists()


def test_a_receipt_names_only_what_the_job_published(tmp_path: Path) -> None:
    """A hash from elsewhere would take credit for another job's work."""
    job = job_in(tmp_path)
    shard(job)
    with pytest.raises(ClientError, match="did not publish"):
        job.hand_in(games=2, samples=5, shards=[HASH])


def test_one_receipt_a_job(tmp_path: Path) -> None:
    """A second receipt would contradict the first."""
    job = job_in(tmp_path)
    evidence = evidence_of(job)
    job.hand_in(**evidence)
    with pytest.raises(ClientError, match="already handed in"):
        job.hand_in(**evidence)


def test_a_users_own_kind_may_hand_in_its_own_evidence(tmp_path: Path) -> None:
    """A kind registered by a user has a schema this client cannot know; empty evidence is none for any kind."""
    job = job_in(tmp_path, kind="puzzle")
    with pytest.raises(ClientError, match="empty"):
        job.hand_in()
    job.hand_in(puzzles=4)
    assert read(tmp_path / "receipt.json") == {"puzzles": 4}


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    """A full or read-only disk must say so in one line."""
    job = job_in(tmp_path / "gone")
    with pytest.raises(ClientError, match="could not be written"):
        job.progress(1)
