"""A coordinator behind a real HTTP server on the loopback interface."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import uvicorn

from gamekeeper.core.clock import SystemClock
from gamekeeper.server.app import create_app
from gamekeeper.server.connections import bounded
from gamekeeper.server.desk import ThreadWorkers
from gamekeeper.server.principals import ADMIN_TOKEN, JOIN_TOKEN, secret_hash
from gamekeeper.store import inventory
from tests.unit.server.rig import HandClock, Rig
from tests.waiting import until


class Served(Rig):
    """The rig, with an address and the headers of each kind of caller."""

    url = ""

    def headers(self, who: str) -> dict[str, str]:
        """The headers of "admin", "join", the enrolled "node", or "nobody"."""
        secret = {"admin": "admin-secret", "join": "join-secret", "node": self.credential}.get(who)
        return {} if secret is None else {"Authorization": f"Bearer {secret}"}


class RunningClock(SystemClock, HandClock):
    """Real time, for what really waits."""


@contextmanager
def serving(folder: Path, most: int = 1000, head_within_s: float = 20.0) -> Iterator[Served]:
    """A served coordinator with one connected node, with `most` connections at once."""
    rig = Served(folder, clock=RunningClock())
    rig.here.desk.workers = ThreadWorkers(2)
    Rig.join(rig)
    for name, secret in ((ADMIN_TOKEN, "admin-secret"), (JOIN_TOKEN, "join-secret")):
        rig.store.write(partial(inventory.set_token_hash, name=name, token_hash=secret_hash(secret)))
    config = uvicorn.Config(
        create_app(rig.here),
        port=0,
        http=bounded(most, head_within_s),
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        rig.url = f"http://127.0.0.1:{port}"
        yield rig
    finally:
        server.should_exit = True
        thread.join(20)


def client(served: Served, **headers: str) -> httpx.Client:
    """A client of the coordinator with these headers."""
    return httpx.Client(base_url=served.url, headers=headers, timeout=20, trust_env=False)
