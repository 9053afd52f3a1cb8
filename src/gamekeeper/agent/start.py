"""Starting an agent: lock, identity, signals, and the run."""

from __future__ import annotations

import random
import secrets
import signal
import threading
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import structlog

from gamekeeper.agent.config import AgentConfig
from gamekeeper.agent.identity import (
    NodeIdentity,
    agent_lock,
    load_identity,
    read_join_token,
    save_identity,
)
from gamekeeper.agent.pacing import Delays
from gamekeeper.agent.runner import Runner
from gamekeeper.agent.transport import CoordinatorHttp, Dial
from gamekeeper.core.clock import Clock, boot_seconds
from gamekeeper.core.errors import Busy, Unreachable
from gamekeeper.protocol import PROTOCOL_VERSION, Enrol

_log = structlog.get_logger("gamekeeper.agent")


async def run_agent(config: AgentConfig, clock: Clock, dial: Dial = CoordinatorHttp) -> None:
    """Be this node's agent until SIGTERM or SIGINT.

    Enrols the node first when it has no identity. Raises `RoleHeld` when another agent uses the folder, `NotAllowed`
    when the coordinator does not accept the join token or the node, `Corrupt` when the identity cannot be read.
    """
    rng = random.Random(secrets.randbits(128))
    with agent_lock(config.folder):
        identity = load_identity(config.folder) or await _enrol(config, clock, dial, rng)
        structlog.contextvars.bind_contextvars(node=identity.node_id)
        async with AsyncExitStack() as stack:
            coordinator = dial(config.url, identity.credential)
            stack.push_async_callback(coordinator.aclose)
            runner = Runner(config, clock, coordinator, rng=rng, boot=boot_seconds)
            tasks = await stack.enter_async_context(anyio.create_task_group())
            if threading.current_thread() is threading.main_thread():
                tasks.start_soon(_heed_signals, runner)
            await runner.run()
            tasks.cancel_scope.cancel()


async def _heed_signals(runner: Runner) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as received:
        async for number in received:
            _log.info("shutting down", signal=number.name)
            runner.shut_down()


async def _enrol(config: AgentConfig, clock: Clock, dial: Dial, rng: random.Random) -> NodeIdentity:
    """Get an identity, however long the coordinator takes to appear."""
    token = read_join_token(config.join_token)
    message = Enrol(protocol=PROTOCOL_VERSION, host_name=config.host_name, slots=config.slots)
    delays = Delays(rng, 0.2, 10.0)
    coordinator = dial(config.url, token)
    try:
        while True:
            try:
                enrolled = await coordinator.enrol(message)
                break
            except Busy as error:
                await clock.sleep(max(error.retry_after_s, delays.failed()))
            except Unreachable as error:
                _log.info("waiting for the coordinator", why=error.message)
                await clock.sleep(delays.failed())
    finally:
        await coordinator.aclose()
    identity = NodeIdentity(enrolled.node_id, enrolled.credential)
    save_identity(Path(config.folder), identity)
    _log.info("enrolled", node=identity.node_id)
    return identity
