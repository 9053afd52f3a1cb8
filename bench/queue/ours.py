"""Gamekeeper's store: one process owns it, clients speak JSON lines over loopback, each call is one step."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
import time
from collections.abc import Sequence
from typing import Any

from parts import Log, Queue

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.jobs import EndReason, JobSpec
from gamekeeper.core.nodes import Observation
from gamekeeper.store import inventory, job_queue, leases
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Writing
from gamekeeper.store.step import Finish, Step, StepReply, take_steps

LEASE_S = 600.0
SEEN = Observation(cpu_count=2, memory_bytes=2**34, disk_free_bytes=None, load=0.5, observed_at=0.0)
Call = tuple[list[str], list[Step]]


def serve_calls(w: Writing, calls: Sequence[Call]) -> list[list[StepReply]]:
    """Take all that the callers bring into one transaction: their jobs first, then all their steps together."""
    sent = [each for puts, _ in calls for each in puts]
    alike = {
        each: JobSpec(kind="command", line="bench", command=("true",), parameters={"sent": json.loads(each)})
        for each in set(sent)
    }
    specs = [alike[each] for each in sent]
    if specs:
        job_queue.submit_many(w, specs)
    replies = iter(take_steps(w, [step for _, steps in calls for step in steps]))
    return [[next(replies) for _ in steps] for _, steps in calls]


class Server:
    """Answers each line with a line. A step that waits is parked until jobs come, and is served in their commit."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parked: dict[asyncio.StreamWriter, Step] = {}

    async def client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while line := await reader.readline():
            await self.answer(json.loads(line), writer)
        self._parked.pop(writer, None)

    async def answer(self, call: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        if "connect" in call:
            await self._store.awrite(lambda w: connect(w, call["connect"], call["slots"]))
            return tell(writer, "{}")
        if "put" in call:
            waiting = self._parked
            self._parked = {}
            replies = await self._store.ajoin(serve_calls, (call["put"], list(waiting.values())))
            tell(writer, "{}")
            for (parked, step), reply in zip(waiting.items(), replies, strict=True):
                self._granted(parked, step, reply, wait=True)
            return None
        done = [Finish(attempt, attempt, EndReason.FINISHED) for attempt in call["done"]]
        step = Step(call["as"], LEASE_S, finishes=done, want=call["want"])
        (reply,) = await self._store.ajoin(serve_calls, ([], [step]))
        self._granted(writer, step, reply, wait=call["wait"])
        return None

    def _granted(self, writer: asyncio.StreamWriter, step: Step, reply: StepReply, *, wait: bool) -> None:
        if wait and not reply.granted:
            self._parked[writer] = Step(step.incarnation, LEASE_S, want=step.want)
            return
        rows = ",".join(
            [f"[{one.attempt_id},{one.row['id']},{one.row['parameters']}]" for one in reply.granted]
        )
        tell(writer, f'{{"jobs":[{rows}]}}')


def tell(writer: asyncio.StreamWriter, line: str) -> None:
    writer.write(line.encode() + b"\n")


def connect(w: Writing, incarnation: str, slots: int) -> None:
    node = inventory.enrol(w, "bench", slots, incarnation)
    leases.connect_agent(w, node.id, incarnation, LEASE_S, held=[], slots=slots, observation=SEEN)


class Ours(Queue):
    """The client's side."""

    served = True
    jobs = 12000

    def prepare(self) -> None:
        Store.open(self.folder / "gamekeeper.db", SystemClock()).close()

    def serve(self) -> None:
        store = Store.open(self.folder / "gamekeeper.db", SystemClock(), random.Random(os.getpid()))
        sys.setswitchinterval(0.0005)

        async def main() -> None:
            server = await asyncio.start_server(Server(store).client, "127.0.0.1", 0, limit=1 << 24)
            port = self.folder / "port.new"
            port.write_text(str(server.sockets[0].getsockname()[1]))
            port.rename(self.folder / "port")
            await server.serve_forever()

        asyncio.run(main())

    def call(self, **message: object) -> Any:
        if not hasattr(self, "_socket"):
            port = self.folder / "port"
            while not port.exists():
                time.sleep(0.01)
            self._socket = socket.create_connection(("127.0.0.1", int(port.read_text())))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._lines = self._socket.makefile("rb", buffering=1 << 20)
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        return json.loads(self._lines.readline())

    def send(self, n: int, sent: int = 0) -> None:
        for _ in range(n):
            self.call(put=[str(sent)])

    def send_batch(self, n: int) -> None:
        self.call(put=["0"] * n)

    def ready(self, log: Log) -> None:
        self._name = f"agent-{os.getpid()}"
        self.call(connect=self._name, slots=1024)

    def work(self, log: Log, slots: int, one_by_one: bool) -> None:
        held: list[Any] = []
        while True:
            if one_by_one:
                for _, _, parameters in held:
                    log.over(parameters["sent"])
            wait = one_by_one or not held
            done = [attempt for attempt, _, _ in held]
            answer = self.call(**{"as": self._name}, done=done, want=slots, wait=wait)
            if not one_by_one:
                for _ in held:
                    log.over()
            held = answer["jobs"]


QUEUES: dict[str, tuple[type[Queue], dict[str, Any]]] = {"gamekeeper": (Ours, {})}
