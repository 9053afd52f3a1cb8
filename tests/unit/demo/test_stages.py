"""The stage programs as real processes in a hand-made job folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from gamekeeper.core.receipts import BUILT_IN_KINDS, Proof, examine
from gamekeeper.demo import net
from tests.waiting import until

pytestmark = pytest.mark.slow

SOURCES = Path(net.__file__).parents[2]
PARAMETERS: dict[str, dict[str, Any]] = {
    "found": {"width": 16, "layers": 2},
    "selfplay": {"simulations": 12},
    "train": {"steps": 30, "batch": 64},
    "evaluate": {"simulations": 12},
}


class JobFolder:
    """A job folder as an agent would make it."""

    def __init__(
        self, path: Path, kind: str, wanted: dict[str, Any], seed: int = 11, **parameters: Any
    ) -> None:
        path.mkdir(parents=True)
        self.path, self.kind = path, kind
        self.spec: dict[str, Any] = {
            "protocol": 1,
            "job": 1,
            "attempt": 2,
            "token": 3,
            "kind": kind,
            "line": "connect4",
            "seed": seed,
            "threads": 1,
            "grace_s": 10.0,
            "parameters": {**PARAMETERS[kind], **parameters},
            "wanted": wanted,
            "inputs": {},
        }

    def give(self, role: str, content: bytes) -> None:
        """Add an input file."""
        digest = blake3(content).hexdigest()
        place = self.path / "inputs"
        place.mkdir(exist_ok=True)
        (place / f"{digest}.npz").write_bytes(content)
        row = {"path": f"inputs/{digest}.npz", "hash": digest, "bytes": len(content), "metadata": {}}
        self.spec["inputs"].setdefault(role, []).append(row)

    def start(self) -> subprocess.Popen[str]:
        (self.path / "parameters.json").write_text(json.dumps(self.spec))
        environment = {
            **os.environ,
            "PYTHONPATH": str(SOURCES),
            "GAMEKEEPER_JOB_DIR": str(self.path),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, "-m", f"gamekeeper.demo.{self.kind}"],
            cwd=self.path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> dict[str, Any]:
        """Run to the end; the receipt must be good and every sealed output whole."""
        with self.start() as process:
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        return self.receipt()

    def fail(self) -> str:
        """Run to the end; it must fail without a receipt. Returns its error text."""
        with self.start() as process:
            _, errors = process.communicate(timeout=60)
        assert process.returncode != 0
        assert not (self.path / "receipt.json").exists()
        return errors

    def receipt(self) -> dict[str, Any]:
        receipt: dict[str, Any] = json.loads((self.path / "receipt.json").read_text())
        assert examine(BUILT_IN_KINDS[self.kind], receipt).proof is Proof.GOOD
        for seal in self.seals():
            assert len(self.output(seal["hash"])) == seal["bytes"]
        return receipt

    def seals(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((self.path / "outbox").glob("*.seal"))]

    def output(self, digest: str) -> bytes:
        """The sealed output with this hash."""
        for path in (self.path / "outbox").iterdir():
            if path.suffix != ".seal" and blake3(path.read_bytes()).hexdigest() == digest:
                return path.read_bytes()
        raise AssertionError(f"no output has the hash {digest}")


def model_bytes(tmp_path: Path, seed: int = 11) -> bytes:
    job = JobFolder(tmp_path / f"found{seed}", "found", {}, seed)
    return job.output(job.run()["model"])


@pytest.fixture(scope="module")
def founder(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return model_bytes(tmp_path_factory.mktemp("founder"))


def test_the_stages_make_a_loop(tmp_path: Path, founder: bytes) -> None:
    """Found, self-play, train and evaluate must fit together through files alone."""
    play = JobFolder(tmp_path / "selfplay", "selfplay", {"games": 12})
    play.give("model", founder)
    played = play.run()
    assert played["games"] == 12
    assert play.seals()[0]["metadata"] == {"games": 12, "samples": played["samples"]}
    assert json.loads((play.path / "progress.json").read_text())["units"] == 12

    train = JobFolder(tmp_path / "train", "train", {"samples": 100})
    train.give("model", founder)
    train.give("shards", play.output(played["shards"][0]))
    trained = train.run()
    assert trained["steps"] == 30
    assert trained["samples"] == min(100, played["samples"])
    assert trained["parent"] == blake3(founder).hexdigest()
    assert train.seals()[0]["metadata"]["parent"] == trained["parent"]
    candidate = train.output(trained["model"])
    assert candidate != founder

    for opponent in ("model", "random", "alphabeta:2", "self"):
        wanted = {"opponent": opponent, "pairs": 3, "first_pair": 20}
        evaluate = JobFolder(tmp_path / f"evaluate-{opponent.replace(':', '-')}", "evaluate", wanted)
        evaluate.give("candidate", candidate)
        if opponent == "model":
            evaluate.give("opponent", founder)
        receipt = evaluate.run()
        assert receipt["games"] == 6
        assert [row[0] for row in receipt["pairs"]] == [20, 21, 22]
        if opponent == "self":
            assert all(first + second == 1 for _, first, second, _ in receipt["pairs"])


def test_a_job_tried_again_makes_the_same_bytes(tmp_path: Path, founder: bytes) -> None:
    """A second attempt with the same seed must be recognisable as the same work."""
    assert model_bytes(tmp_path / "a", 5) == model_bytes(tmp_path / "b", 5)
    hashes = []
    for name in ("one", "two"):
        job = JobFolder(tmp_path / name, "selfplay", {"games": 5})
        job.give("model", founder)
        hashes.append(job.run()["shards"])
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("kind", ["selfplay", "train", "evaluate"])
@pytest.mark.parametrize("content", [b"no model at all", b""])
def test_a_model_that_does_not_load_fails_the_job(tmp_path: Path, kind: str, content: bytes) -> None:
    """A random net in its place would look like success and ruin the line."""
    wanted = {"games": 4, "samples": 10, "opponent": "self", "pairs": 1, "first_pair": 0}
    job = JobFolder(tmp_path / "job", kind, wanted)
    job.give("candidate" if kind == "evaluate" else "model", content)
    errors = job.fail()
    assert "does not load" in errors
    assert "Traceback" not in errors
    assert not list(job.path.glob("outbox/*"))


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the file exists; fail when the process ends first."""
    while not path.exists():
        try:
            process.wait(timeout=0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError(f"the process ended with {process.returncode} before {path.name} came")


def test_a_stopped_self_play_hands_in_the_finished_games(tmp_path: Path, founder: bytes) -> None:
    """Work lost at every stop would starve the loop on machines that come and go."""
    job = JobFolder(tmp_path / "job", "selfplay", {"games": 400}, simulations=60)
    job.give("model", founder)
    progress = job.path / "progress.json"
    with job.start() as process:
        wait_for(progress, process)
        until(lambda: json.loads(progress.read_text())["units"] or process.poll() is not None)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    receipt = job.receipt()
    assert 0 < receipt["games"] < 400
    (seal,) = job.seals()
    assert seal["metadata"]["games"] == receipt["games"]
    with np.load(next(job.path.glob("outbox/*.npz"))) as shard:
        assert len(np.unique(shard["game"])) == receipt["games"]
        assert len(shard["values"]) == receipt["samples"]


@pytest.mark.parametrize("kind", ["selfplay", "train", "evaluate"])
def test_a_job_stopped_before_it_has_anything_hands_in_nothing(
    tmp_path: Path, kind: str, founder: bytes
) -> None:
    """An empty receipt would count as success."""
    job = JobFolder(
        tmp_path / "job", kind, {"games": 4, "samples": 9, "opponent": "self", "pairs": 9, "first_pair": 0}
    )
    job.give("candidate" if kind == "evaluate" else "model", founder)
    if kind == "train":
        play = JobFolder(tmp_path / "play", "selfplay", {"games": 3})
        play.give("model", founder)
        job.give("shards", play.output(play.run()["shards"][0]))
    (job.path / "stop").touch()
    errors = job.fail()
    assert "Asked to stop" in errors
    assert not list(job.path.glob("outbox/*"))


@pytest.mark.parametrize(
    ("kind", "wanted", "reason"),
    [
        ("selfplay", {"games": 0}, "0 games"),
        ("selfplay", {}, "'games'"),
        ("evaluate", {"opponent": "nobody", "pairs": 1, "first_pair": 0}, "no opponent 'nobody'"),
        ("evaluate", {"opponent": "alphabeta:99", "pairs": 1, "first_pair": 0}, "no opponent"),
        ("evaluate", {"opponent": "model", "pairs": 1, "first_pair": 0}, "exactly one input 'opponent'"),
        ("evaluate", {"opponent": "self", "pairs": 0, "first_pair": 0}, "0 pairs"),
        ("train", {"samples": 10}, "no shard"),
    ],
)
def test_a_job_that_makes_no_sense_fails_with_a_line(
    tmp_path: Path, kind: str, wanted: dict[str, Any], reason: str, founder: bytes
) -> None:
    """A traceback, or a default opponent, would hide the mistake in the settings."""
    job = JobFolder(tmp_path / "job", kind, wanted)
    job.give("candidate" if kind == "evaluate" else "model", founder)
    errors = job.fail()
    assert reason in errors
    assert "Remedy" in errors
    assert "Traceback" not in errors
