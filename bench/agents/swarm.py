"""Many agents in one process: the product's own agent core for each, real sockets, pretended jobs.

Each agent is an `AgentCore`, so what is sent and when (beats, long-poll claims, reconnects) is what real agents do.
HTTP is spoken over bare asyncio protocols, which cost a tenth of a client library: the load must leave the machine
to the coordinator. As in the real transport a call takes an idle connection or opens one, and an idle one is closed
after two seconds.
"""

from __future__ import annotations

import asyncio
import random
import resource
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from pydantic import BaseModel

from gamekeeper.adapters.http import KEEP_S
from gamekeeper.agent import messages as m
from gamekeeper.agent.core import AgentCore
from gamekeeper.agent.endings import Exit
from gamekeeper.agent.runner import failure_of
from gamekeeper.core.clock import boot_seconds
from gamekeeper.core.errors import Unreachable, UsageError, from_json
from gamekeeper.core.jobs import ProcessIdentity
from gamekeeper.protocol import BeatReply, Claimed, Connected, Enrol, Enrolled, ErrorBody, Observed, Stepped

SOURCES = 16
ANSWER_S = 15.0
Answer = Callable[[int, bytes], None]
"""Told (HTTP status, body); status 0 when there was no answer."""


@dataclass
class Tally:
    """What the swarm saw. Latencies are in seconds, a connection's set-up included."""

    beats: array[float] = field(default_factory=lambda: array("d"))
    claims: int = 0
    connects: array[float] = field(default_factory=lambda: array("d"))
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    dropped: int = 0
    lag: array[float] = field(default_factory=lambda: array("d"))


class Wire(asyncio.Protocol):
    """One keep-alive connection with one call at a time."""

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._kept: list[Wire] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, answer: Answer, kept: list[Wire], within_s: float) -> None:
        """Send a request; the connection goes back into `kept` after the answer."""
        if self._timer is not None:
            self._timer.cancel()
        self._answer, self._kept, self._got = answer, kept, b""
        self._timer = self._swarm.loop.call_later(within_s, self._give_up)
        assert self._transport is not None
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._got[:end].lower()
        at = head.find(b"content-length:")
        size = int(head[at + 15 : end].split(b"\r\n", 1)[0])
        if len(self._got) < end + 4 + size:
            return
        status, body = int(head[9:12]), self._got[end + 4 : end + 4 + size]
        answer, self._answer, self._got = self._answer, None, b""
        if self._timer is not None:
            self._timer.cancel()
        if b"connection: close" in head:
            self._give_up()
        elif self._kept is not None:
            self._kept.append(self)
            self._timer = self._swarm.loop.call_later(KEEP_S, self._give_up)
        if answer is not None:
            answer(status, body)

    def connection_lost(self, _error: Exception | None) -> None:
        self._over()

    def _give_up(self) -> None:
        if self._transport is not None:
            self._transport.abort() if self._answer is not None else self._transport.close()
        self._over()

    def _over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._kept is not None and self in self._kept:
            self._kept.remove(self)
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(0, b"")


class Agent:
    """One agent: its core, its timer, and its connections."""

    def __init__(self, swarm: Swarm, number: int, credential: str) -> None:
        self._swarm = swarm
        self._rng = random.Random(f"{swarm.seed}/{number}")
        self.core = AgentCore(swarm.slots, self._rng, claim_wait_s=swarm.claim_wait_s)
        self._kept: list[Wire] = []
        self._timer: asyncio.TimerHandle | None = None
        self._source = f"127.0.{1 + number % SOURCES}.1"
        self._authorization = f"authorization: Bearer {credential}\r\n".encode()

    def begin(self) -> None:
        """Start as an agent process with an empty folder does."""
        self.tell(m.Restored(()))
        self.tell(m.Measured(Observed(cpu_count=8, memory_bytes=1 << 36, load=0.5), True))

    def tell(self, event: m.Event) -> None:
        """Hand the core an event and carry out what it says."""
        for command in self.core.handle(event, boot_seconds()):
            self._carry_out(command)
        if self._timer is not None:
            self._timer.cancel()
        wait_s = self.core.next_wake - boot_seconds()
        self._timer = (
            self._swarm.loop.call_later(max(0.0, wait_s), self.tell, m.Tick()) if wait_s < 1e6 else None
        )

    def _carry_out(self, command: m.Command) -> None:
        match command:
            case m.SendConnect():
                self._call(command.serial, "/v1/agent/connect", command.message, self._connected)
            case m.SendBeat():
                every_s = self.core.lease.beat_every_s if self.core.lease else ANSWER_S
                self._call(command.serial, "/v1/agent/beat", command.message, self._beaten, every_s)
            case m.SendClaim():
                within_s = command.message.wait_s + 10.0
                self._call(command.serial, "/v1/agent/claim", command.message, self._claimed, within_s)
            case m.SendStarted():
                path = f"/v1/attempts/{command.attempt}/started"
                self._call(
                    command.serial, path, command.message, lambda n, *_: self.tell(m.StartedAnswered(n))
                )
            case m.SendStep():
                self._call(command.serial, "/v1/agent/step", command.message, self._stepped)
            case m.FetchInputs():
                self._soon(0.0, m.InputsReady(command.serial))
            case m.StartProcess():
                self._start(command)
            case m.StopProcess():
                self._swarm.tally.dropped += 1
                self._soon(0.1, m.ProcessEnded(command.attempt, Exit("stopped", signal=15)))
            case m.Note():
                self._swarm.tally.notes[command.text.split("(")[0][:60]] += 1
            case _:
                pass

    def _start(self, command: m.StartProcess) -> None:
        now, attempt = boot_seconds(), command.grant.attempt
        self._soon(0.0, m.ProcessStarted(attempt, ProcessIdentity("b", attempt % 30000 + 2, attempt), now))
        if command.grant.purpose == "short":
            self._soon(self._rng.uniform(2.0, 8.0), m.ProcessEnded(attempt, Exit("exited", 1, process_s=5.0)))

    def _soon(self, delay_s: float, event: m.Event) -> None:
        self._swarm.loop.call_later(delay_s, self.tell, event)

    def _connected(self, serial: int, body: bytes, sent_at: float) -> None:
        self._swarm.tally.connects.append(boot_seconds())
        self.tell(m.ConnectAnswered(serial, sent_at, Connected.model_validate_json(body)))

    def _beaten(self, serial: int, body: bytes, sent_at: float) -> None:
        self._swarm.tally.beats.append(boot_seconds() - sent_at)
        self.tell(m.BeatAnswered(serial, sent_at, BeatReply.model_validate_json(body)))

    def _stepped(self, serial: int, body: bytes, sent_at: float) -> None:
        self.tell(m.StepAnswered(serial, sent_at, Stepped.model_validate_json(body)))

    def _claimed(self, serial: int, body: bytes, _sent_at: float) -> None:
        self._swarm.tally.claims += 1
        self.tell(m.ClaimAnswered(serial, Claimed.model_validate_json(body)))

    def _call(
        self,
        serial: int,
        path: str,
        message: BaseModel,
        then: Callable[[int, bytes, float], None],
        within_s: float = ANSWER_S,
    ) -> None:
        sent_at = boot_seconds()
        name = path.rsplit("/", 1)[1]

        def answered(status: int, body: bytes) -> None:
            self._swarm.tally.statuses[name, status] += 1
            if status == 200:
                then(serial, body, sent_at)
                return
            error = (
                from_json(ErrorBody.model_validate_json(body).model_dump())
                if body
                else Unreachable("no answer")
            )
            self.tell(failure_of(serial, error))

        self._swarm.post(path, self._authorization, message, answered, self._kept, self._source, within_s)


class Swarm:
    """All agents, on one event loop."""

    def __init__(self, host: str, port: int, *, slots: int, claim_wait_s: float, seed: int = 1) -> None:
        self.loop = asyncio.get_running_loop()
        self.host, self.port = host, port
        self.slots, self.claim_wait_s, self.seed = slots, claim_wait_s, seed
        self.agents: list[Agent] = []
        self.tally = Tally()
        self._dialling: set[asyncio.Task[None]] = set()

    def post(
        self,
        path: str,
        authorization: bytes,
        message: BaseModel,
        answer: Answer,
        kept: list[Wire],
        source: str,
        within_s: float,
    ) -> None:
        """Call the coordinator over a kept connection or a fresh one."""
        body = message.model_dump_json().encode()
        head = f"POST {path} HTTP/1.1\r\nhost: {self.host}\r\ncontent-type: application/json\r\n"
        head += f"content-length: {len(body)}\r\n"
        request = head.encode() + authorization + b"\r\n" + body
        if kept:
            kept.pop().send(request, answer, kept, within_s)
            return
        task = self.loop.create_task(self._dial(request, answer, kept, source, within_s))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(
        self, request: bytes, answer: Answer, kept: list[Wire], source: str, within_s: float
    ) -> None:
        try:
            async with asyncio.timeout(5.0):
                _, wire = await self.loop.create_connection(
                    lambda: Wire(self), self.host, self.port, local_addr=(source, 0)
                )
        except OSError:
            answer(0, b"")
            return
        wire.send(request, answer, kept, within_s)

    async def call(self, path: str, token: str, message: BaseModel) -> tuple[int, bytes]:
        """One call of a caller who is no agent."""
        answered: asyncio.Future[tuple[int, bytes]] = self.loop.create_future()
        authorization = f"authorization: Bearer {token}\r\n".encode()
        self.post(
            path, authorization, message, lambda *got: answered.set_result(got), [], "127.0.0.1", ANSWER_S
        )
        return await answered

    async def enrol(self, number: int, join_token: str, at_once: int = 32) -> None:
        """Get `number` agents their identities."""
        left = iter(range(number))

        async def some() -> None:
            for index in left:
                message = Enrol(protocol=1, host_name=f"host-{index}", slots=self.slots)
                status, body = await self.call("/v1/enrol", join_token, message)
                if status != 200:
                    raise UsageError(f"enrolment was answered {status} {body!r}")
                self.agents.append(Agent(self, index, Enrolled.model_validate_json(body).credential))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(some())

    async def begin(self, within_s: float) -> None:
        """Start all agents, evenly over `within_s` seconds."""
        for agent in self.agents:
            agent.begin()
            await asyncio.sleep(within_s / len(self.agents))

    async def watch_lag(self) -> None:
        """Note how late this process's own loop is: that part of a latency is not the coordinator's."""
        while True:
            due = self.loop.time() + 0.05
            await asyncio.sleep(0.05)
            self.tally.lag.append(self.loop.time() - due)

    @property
    def connected(self) -> int:
        """Agents that hold their node's lease."""
        return sum(agent.core.connected for agent in self.agents)

    @property
    def running(self) -> int:
        """Attempts in the agents' hands."""
        return sum(len(agent.core.desk) for agent in self.agents)


def raise_file_limit() -> int:
    """Allow as many sockets as the machine lets us have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
