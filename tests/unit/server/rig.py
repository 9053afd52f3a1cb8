"""A coordinator in memory: the real logic, store and files, a clock that only tests move, and no threads."""

from __future__ import annotations

import io
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import anyio
import anyio.lowlevel
import numpy as np
from blake3 import blake3

from gamekeeper.adapters.object_store import FolderStore
from gamekeeper.core.artifacts import ArtifactKind, Upload
from gamekeeper.core.jobs import EndReason, JobSpec
from gamekeeper.protocol import Claim, Connect, Enrol, Finish, Finished, Grant, Observed, SealArtifact, Sealed
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.desk import ROLE, Desk, InlineWorkers
from gamekeeper.settings import Settings, resolve
from gamekeeper.store import job_queue, leases
from gamekeeper.store.engine import Store

T = TypeVar("T")
LINE = "mini"
STAGE = {"command": ["{python}", "-m", "mini"]}
DOCUMENT: dict[str, object] = {
    "coordinator": {"lease_s": 8.0},
    "artifacts": {"max_bytes": 1 << 20, "min_free_bytes": 0},
    "lines": {
        LINE: {
            "found": STAGE,
            "selfplay": {**STAGE, "wanted": {"games": 4}},
            "train": STAGE,
            "evaluate": STAGE,
            "training": {"min_new_samples": 10, "window_samples": 100},
            "evaluation": {"pairs_per_job": 20},
            "promotion": {
                "elo0": 0.0, "elo1": 50.0, "alpha": 0.05, "beta": 0.05, "max_pairs": 200, "canary_pairs": 0,
            },
            "contract": {
                "games_from": "game",
                "arrays": {
                    "policy": {"dtype": "<f4", "shape": ["N", 3], "finite": True, "row_sum": 1.0},
                    "game": {"dtype": "<i4", "shape": ["N"]},
                },
            },
        }
    },
}  # fmt: skip


class HandClock:
    """Time that stands still until a test moves it."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._sleepers: list[tuple[float, anyio.Event]] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        woken = anyio.Event()
        self._sleepers.append((self._now + seconds, woken))
        await woken.wait()

    def block(self, seconds: float) -> None:
        self._now += seconds

    @property
    def sleeping(self) -> int:
        """How many tasks wait for time to pass."""
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let time pass, and wake who slept until then."""
        self._now += seconds
        due = [woken for until, woken in self._sleepers if until <= self._now]
        self._sleepers = [one for one in self._sleepers if one[0] > self._now]
        for woken in due:
            woken.set()


def run(work: Coroutine[object, object, T]) -> T:
    """The result of `work`; no test waits for real time."""

    async def bounded() -> T:
        with anyio.fail_after(20):
            return await work

    return anyio.run(bounded)


def settings_of(document: Mapping[str, object] = DOCUMENT) -> Settings:
    """Settings from a document in memory."""
    return resolve(dict(document), environment={}, flags={})


def shard(games: int = 2, samples: int = 6, *, nan: bool = False, seed: int = 0) -> bytes:
    """A shard that keeps the contract of `DOCUMENT`, unless told to hold a NaN."""
    policy = np.random.default_rng(seed).random((samples, 3)).astype("<f4")
    policy /= policy.sum(axis=1, keepdims=True)
    if nan:
        policy[0, 0] = np.nan
    out = io.BytesIO()
    np.savez(out, policy=policy, game=(np.arange(samples) % games).astype("<i4"))
    return out.getvalue()


def digest(data: bytes) -> str:
    """What names these bytes."""
    return blake3(data).hexdigest()


@dataclass
class Rig:
    """A coordinator, and one enrolled and connected node to talk to it as."""

    folder: Path
    clock: HandClock = field(default_factory=HandClock)
    document: Mapping[str, object] = field(default_factory=lambda: DOCUMENT)

    def __post_init__(self) -> None:
        self.store = Store.inline(self.clock)
        self.settings = settings_of(self.document)
        self.files = FolderStore(self.folder, max_bytes=self.settings.artifacts.max_bytes, min_free_bytes=0)
        self.epoch = self.store.write(lambda w: leases.take_role(w, ROLE, "test", 3600.0, displace=True))
        desk = Desk(
            store=self.store, clock=self.clock, settings=self.settings, files=self.files,
            workers=InlineWorkers(), epoch=self.epoch,
        )  # fmt: skip
        self.here = Coordinator(desk)
        self.node_id, self.credential, self.incarnation = "", "", ""

    def restarted(self) -> Rig:
        """The same store and files under a coordinator that remembers nothing."""
        again = Rig.__new__(Rig)
        again.__dict__.update(self.__dict__)
        again.epoch = self.store.write(lambda w: leases.take_role(w, ROLE, "test", 3600.0, displace=True))
        desk = Desk(
            store=self.store, clock=self.clock, settings=self.settings, files=self.files,
            workers=InlineWorkers(), epoch=again.epoch,
        )  # fmt: skip
        again.here = Coordinator(desk)
        return again

    def join(self, slots: int = 4, incarnation: str = "a" * 32) -> None:
        """Enrol a node and connect its agent."""
        enrolled = run(self.here.enrol(Enrol(protocol=1, host_name="host", slots=slots)))
        self.node_id, self.credential = enrolled.node_id, enrolled.credential
        self.connect(slots, incarnation)

    def connect(self, slots: int = 4, incarnation: str = "a" * 32) -> None:
        """Connect a fresh agent process that holds nothing."""
        self.incarnation = incarnation
        message = Connect(protocol=1, incarnation=incarnation, slots=slots, held=[], observed=Observed())
        run(self.here.connect(self.node_id, message))

    def submit(self, kind: str = "selfplay", **more: object) -> int:
        """Enqueue a job of the line."""
        spec = JobSpec(kind=kind, line=LINE, command=("true",), **more)  # type: ignore[arg-type]
        return self.store.write(lambda w: job_queue.submit(w, spec))[0]

    def lease(self, job_id: int) -> None:
        """Grant a job to the node, as the distributor would."""
        self.store.write(lambda w: job_queue.grant(w, job_id, self.node_id, self.incarnation))

    def claim(self, slots: int = 4) -> list[Grant]:
        """What a claim that does not wait brings."""
        message = Claim(incarnation=self.incarnation, slots=slots, wait_s=0)
        return run(self.here.claim(self.node_id, message)).grants

    def attempt(self, kind: str = "selfplay", **more: object) -> Grant:
        """A granted job in the hands of the agent."""
        job_id = self.submit(kind, **more)
        self.lease(job_id)
        (grant,) = self.claim()
        return grant

    def hand_in(
        self, grant: Grant, data: bytes, kind: ArtifactKind = ArtifactKind.SHARD, /, **metadata: int
    ) -> Sealed:
        """Upload and seal a file of an attempt."""
        upload = Upload(grant.attempt, grant.token, digest(data))
        run(self.here.uploads.append(self.node_id, upload, 0, data))
        message = SealArtifact(kind=kind, name="file.bin", bytes=len(data), metadata=dict(metadata))
        return run(self.here.uploads.seal(self.node_id, upload, message))

    def finish(
        self,
        grant: Grant,
        receipt: object = None,
        reason: EndReason = EndReason.FINISHED,
        exit_code: int | None = 0,
    ) -> Finished:
        """Report the end of an attempt."""
        message = Finish.model_validate(
            {"token": grant.token, "reason": reason, "exit_code": exit_code, "receipt": receipt}
        )
        return run(self.here.finish(self.node_id, grant.attempt, message))

    def selfplay_receipt(self, *shards: tuple[bytes, int, int]) -> dict[str, object]:
        """The receipt for these (bytes, games, samples)."""
        return {
            "games": sum(games for _, games, _ in shards),
            "samples": sum(samples for _, _, samples in shards),
            "shards": [digest(data) for data, _, _ in shards],
        }
