"""Hand-written lower bound: a few statements on one SQLite file that all processes share, no events, no leases."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from parts import Log, Queue

_TABLE = (
    "CREATE TABLE job (id INTEGER PRIMARY KEY, state INTEGER NOT NULL DEFAULT 0, token INTEGER NOT NULL DEFAULT 0,"
    " due REAL NOT NULL DEFAULT 0, until REAL, sent INTEGER NOT NULL);"
    "CREATE INDEX job_ready ON job (due, id) WHERE state = 0;"
)
_TAKE = (
    "UPDATE job SET state = 1, token = token + 1, until = ?1 + 60 WHERE id IN"
    " (SELECT id FROM job WHERE state = 0 AND due <= ?1 ORDER BY due, id LIMIT ?2) RETURNING id, token, sent"
)
_DONE = "UPDATE job SET state = 2, until = NULL WHERE id = ? AND token = ? AND state = 1"


class BareSqlite(Queue):
    """Completion and the next claim in one transaction where `fused`, in two otherwise."""

    jobs = 4000

    def link(self) -> sqlite3.Connection:
        link = sqlite3.connect(self.folder / "q.db", isolation_level=None, timeout=60)
        link.execute("PRAGMA journal_mode = WAL")
        link.execute("PRAGMA synchronous = FULL")
        return link

    def prepare(self) -> None:
        self.link().executescript(_TABLE)

    def send(self, n: int, sent: int = 0) -> None:
        link = getattr(self, "_link", None) or self.link()
        self._link = link
        for _ in range(n):
            link.execute("INSERT INTO job (sent) VALUES (?)", (sent,))

    def send_batch(self, n: int) -> None:
        link = getattr(self, "_link", None) or self.link()
        self._link = link
        link.execute("BEGIN IMMEDIATE")
        link.executemany("INSERT INTO job (sent) VALUES (?)", [(0,)] * n)
        link.execute("COMMIT")

    def ready(self, log: Log) -> None:
        self._link = self.link()

    def work(self, log: Log, slots: int, one_by_one: bool) -> None:
        link, fused = self._link, self.options["fused"]
        held: list[Any] = []
        while True:
            seen = link.execute("PRAGMA data_version").fetchone()[0]
            if fused:
                link.execute("BEGIN IMMEDIATE")
                link.executemany(_DONE, [(job, token) for job, token, _ in held])
                taken = link.execute(_TAKE, (time.time(), slots)).fetchall()
                link.execute("COMMIT")
                over, held = held, taken
            else:
                over = taken = link.execute(_TAKE, (time.time(), slots)).fetchall()
                if taken:
                    link.execute("BEGIN IMMEDIATE")
                    link.executemany(_DONE, [(job, token) for job, token, _ in taken])
                    link.execute("COMMIT")
            for _, _, sent in over:
                log.over(sent)
            while not taken and link.execute("PRAGMA data_version").fetchone()[0] == seen:
                time.sleep(0.001)


QUEUES: dict[str, tuple[type[Queue], dict[str, Any]]] = {
    "bare SQL": (BareSqlite, {"fused": False}), "bare SQL, fused": (BareSqlite, {"fused": True}),
}  # fmt: skip
