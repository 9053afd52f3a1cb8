"""The process that serves: its interpreter, its listening socket, and the measure of how late its event loop runs."""

from __future__ import annotations

import contextlib
import gc
import socket
import sys
from collections.abc import Iterator

import anyio
import uvicorn

from gamekeeper.core.clock import Clock
from gamekeeper.core.errors import SettingsError
from gamekeeper.server.gates import Gates
from gamekeeper.settings import Settings

LAG_EVERY_S = 0.1
SWITCH_S = 0.0005
COLLECTOR_THRESHOLDS = (2_000, 10, 1_000)


def prepare_interpreter() -> None:
    """Set Python up for one process with many parked calls and a few threads that hand over to one another.

    Ten thousand parked calls are millions of objects, and Python's own pace walks through all of them every few seconds
    in search of cyclic garbage: a second's delay of every beat. Here only young objects are walked, but for once in a
    long while; what calls leave behind is freed by counting. And the store's threads ask for the interpreter at every
    statement, so they must not wait long for a busy event loop to let go of it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    sys.setswitchinterval(SWITCH_S)


@contextlib.contextmanager
def listen(settings: Settings, earlier_port: int) -> Iterator[socket.socket]:
    """A listening socket. With port 0, the port of the coordinator before this one if it is free: agents know it."""
    host, port = settings.coordinator.host, settings.coordinator.port
    listener = _bind(host, earlier_port) if port == 0 and earlier_port else None
    listener = listener or _bind(host, port)
    if listener is None:
        raise SettingsError(
            f"port {port} on {host} cannot be listened on: it is taken, or the address is not this machine's",
            remedy="stop what listens there, or set [coordinator] port (0 takes any free one)",
        )
    with listener:
        yield listener


def _bind(host: str, port: int) -> socket.socket | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except OSError:
        return None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(4096)
    except OSError:
        listener.close()
        return None
    return listener


def url_of(settings: Settings, listener: socket.socket) -> str:
    """The address under which this machine reaches the listener."""
    host = settings.coordinator.host
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{listener.getsockname()[1]}"


# --- the coordinator's process


class Server(uvicorn.Server):
    """uvicorn that leaves signals to us and says when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled by the root."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer."""
        await super().startup(sockets)
        self.answering.set()


async def watch_lag(clock: Clock, gates: Gates) -> None:
    """Measure how late the event loop runs: classes of calls that can wait yield when it does."""
    while True:
        due = clock.monotonic() + LAG_EVERY_S
        await clock.sleep(LAG_EVERY_S)
        gates.lag_s = clock.monotonic() - due
