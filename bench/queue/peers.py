"""Job queue libraries, each left out where it is not installed (requirements/bench.txt)."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import threading
from typing import Any

from parts import Log, Queue


class Huey(Queue):
    """SqliteHuey with its defaults: the job is deleted when it is taken."""

    batches = False

    def huey(self, log: Log | None = None) -> tuple[Any, Any]:
        from huey import SqliteHuey

        huey = SqliteHuey("q", filename=str(self.folder / "huey.db"), results=False, timeout=60)

        @huey.task()
        def nothing(sent: int) -> None:
            if log is not None:
                log.over(sent)

        return huey, nothing

    def prepare(self) -> None:
        self.huey()

    def send(self, n: int, sent: int = 0) -> None:
        self._task = getattr(self, "_task", None) or self.huey()[1]
        for _ in range(n):
            self._task(sent)

    def ready(self, log: Log) -> None:
        logging.disable(logging.CRITICAL)
        self._consumer = self.huey(log)[0].create_consumer(workers=1, periodic=False)

    def work(self, log: Log, slots: int, one_by_one: bool) -> None:
        self._consumer.run()


class Procrastinate(Queue):
    """The asynchronous worker with LISTEN and NOTIFY."""

    jobs = 1500

    def app(self, connector: Any, log: Log | None = None) -> tuple[Any, Any]:
        import procrastinate

        app = procrastinate.App(connector=connector)

        @app.task(queue="q", name="nothing")
        async def nothing(sent: int) -> None:
            if log is not None:
                log.over(sent)

        return app, nothing

    def open(self) -> tuple[Any, Any]:
        import procrastinate

        app, task = self.app(procrastinate.SyncPsycopgConnector(conninfo=self.options["postgres"]))
        app.open()
        return app, task

    def prepare(self) -> None:
        import psycopg

        with psycopg.connect(self.options["postgres"], autocommit=True) as link:
            link.execute("DROP SCHEMA public CASCADE")
            link.execute("CREATE SCHEMA public")
        self.open()[0].schema_manager.apply_schema()

    def send(self, n: int, sent: int = 0) -> None:
        self._opened = getattr(self, "_opened", None) or self.open()
        for _ in range(n):
            self._opened[1].defer(sent=sent)

    def send_batch(self, n: int) -> None:
        self._opened = getattr(self, "_opened", None) or self.open()
        self._opened[1].batch_defer(*[{"sent": 0}] * n)

    def ready(self, log: Log) -> None:
        import procrastinate

        logging.disable(logging.CRITICAL)
        self._app, _ = self.app(procrastinate.PsycopgConnector(conninfo=self.options["postgres"]), log)

    def work(self, log: Log, slots: int, one_by_one: bool) -> None:
        async def main() -> None:
            async with self._app.open_async():
                await self._app.run_worker_async(queues=["q"], concurrency=slots)

        asyncio.run(main())


class Dbos(Queue):
    """DBOS workflows from a queue, with its defaults; the outcome of a job is written behind."""

    jobs = 500
    batches = False

    def url(self) -> str:
        return f"sqlite:///{self.folder / 'dbos.sqlite'}"

    def launch(self, log: Log | None = None) -> None:
        os.environ.setdefault("DBOS__VMID", str(os.getpid()))
        logging.disable(logging.CRITICAL)
        from dbos import DBOS

        DBOS(
            config={
                "name": "bench", "system_database_url": self.url(), "application_version": "1",
                "executor_id": str(os.getpid()), "log_level": "CRITICAL",
            }
        )  # fmt: skip

        @DBOS.workflow(name="nothing")
        def nothing(sent: int) -> None:
            if log is not None:
                log.over(sent)

        DBOS.launch()
        DBOS.register_queue("q")

    def prepare(self) -> None:
        self.launch()
        os._exit(0)

    def send(self, n: int, sent: int = 0) -> None:
        from dbos import DBOSClient

        logging.disable(logging.CRITICAL)
        self._client = getattr(self, "_client", None) or DBOSClient(system_database_url=self.url())
        for _ in range(n):
            self._client.enqueue({"queue_name": "q", "workflow_name": "nothing", "app_version": "1"}, sent)

    def ready(self, log: Log) -> None:
        import dbos  # noqa: F401 - before the start is given

    def work(self, log: Log, slots: int, one_by_one: bool) -> None:
        self.launch(log)
        threading.Event().wait()


def _there(*modules: str) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


QUEUES: dict[str, tuple[type[Queue], dict[str, Any]]] = {}
if _there("huey"):
    QUEUES["Huey"] = (Huey, {})
if _there("procrastinate") and os.environ.get("BENCH_POSTGRES"):
    QUEUES["Procrastinate"] = (Procrastinate, {"postgres": os.environ["BENCH_POSTGRES"]})
if _there("dbos"):
    QUEUES["DBOS"] = (Dbos, {})
