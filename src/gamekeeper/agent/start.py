"""Starting an agent: lock, identity, signals, and the run."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

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
from gamekeeper.core.clock import Clock, boot_seconds, unseeded
from gamekeeper.core.errors import Busy, Unreachable
from gamekeeper.protocol import PROTOCOL_VERSION, Enrol

_log = structlog.get_logger("gamekeeper.agent")


async def run_agent(config: AgentConfig, clock: Clock, dial: Dial = CoordinatorHttp) -> None:
    """Be this node's agent until SIGTERM or SIGINT.

    Enrols the node first when it has no identity. Raises `RoleHeld` when another agent uses the folder, `NotAllowed`
    when the coordinator does not accept the join token or the node, `Corrupt` when the identity cannot be read.
    """
    rng = unseeded()
    with agent_lock(config.folder):
        identity = load_identity(config.folder) or await _enrol(config, clock, dial, rng)
        structlog.contextvars.bind_contextvars(node=identity.node_id)
        coordinator = dial(config.url, identity.credential)
        try:
            runner = Runner(config, clock, coordinator, rng=rng, boot=boot_seconds)
            main = threading.current_thread() is threading.main_thread()
            await runner.run((signal.SIGTERM, signal.SIGINT) if main else ())
        finally:
            await coordinator.aclose()


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
