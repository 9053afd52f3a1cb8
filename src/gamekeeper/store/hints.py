"""Hearing of what other processes committed to a PostgreSQL store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import psycopg

from gamekeeper.store.postgres import CHANNEL, FIRST_WAIT_S, LONGEST_WAIT_S, Server

LISTEN_S = 0.5


class HintListener:
    """A thread with a connection of its own that hears of others' commits. Losing it costs nothing but time."""

    def __init__(self, server: Server, own: Callable[[], int], hear: Callable[[], None]) -> None:
        self._server, self._own, self._hear = server, own, hear
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="store-hints", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and its connection."""
        self._ending.set()
        self._thread.join()

    def _listen(self) -> None:
        wait = FIRST_WAIT_S
        while not self._ending.is_set():
            try:
                with self._server.connect() as raw:
                    raw.execute(f"LISTEN {CHANNEL}", prepare=False)
                    wait = FIRST_WAIT_S
                    # What was said while nobody listened is made up for.
                    self._hear()
                    self._hear_of(raw)
            except psycopg.Error:
                self._ending.wait(wait)
                wait = min(LONGEST_WAIT_S, 2 * wait)

    def _hear_of(self, raw: psycopg.Connection[Any]) -> None:
        while not self._ending.is_set():
            said = [notice.pid for notice in raw.notifies(timeout=LISTEN_S, stop_after=1)]
            if any(pid != self._own() for pid in said):
                self._hear()
