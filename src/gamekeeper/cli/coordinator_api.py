"""The coordinator's API for people, as the command line calls it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Self, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from gamekeeper.core.errors import (
    Busy,
    GamekeeperError,
    NotAllowed,
    Unreachable,
    from_json,
)
from gamekeeper.inspection import (
    ActedRow,
    BulkPlan,
    BulkRow,
    EventRow,
    JobDetail,
    JobRow,
    LineRow,
    ModelRow,
    NodeRow,
    Report,
    Status,
    Why,
)
from gamekeeper.protocol import SubmittedJob

T = TypeVar("T")
TIMEOUT_S = 15.0
MAX_ANSWER = 64 * 1024 * 1024
MAX_SMALL_FILE = 64 * 1024


class CoordinatorApi:
    """A connection to one coordinator, with the rights of its admin token. Use as a context manager."""

    def __init__(self, url: str, token: str, *, started_with: str = "gamekeeper up") -> None:
        self.url = url.rstrip("/")
        self._start_hint = started_with
        # Proxy settings of the environment are ignored: a proxy cannot reach this machine's loopback address.
        self._client = httpx.Client(
            base_url=self.url,
            timeout=TIMEOUT_S,
            trust_env=False,
            verify=self.url.startswith(
                "https:"
            ),  # a plain address needs no certificates, which are slow to load
            headers={"Authorization": f"Bearer {token}"},
        )

    @classmethod
    def of_data_dir(cls, data_dir: Path) -> Self:
        """Connect to the coordinator that works on `data_dir` on this machine.

        Raises `Unreachable` when none has announced itself there, `NotAllowed` when the admin token cannot be read.
        """
        start = f"gamekeeper up --data-dir {data_dir}"
        url = announced_url(data_dir)
        if url is None:
            raise Unreachable(f"no coordinator is running on {data_dir}", remedy=f"start one: {start}")
        token_file = data_dir / "tokens" / "admin.token"
        try:
            token = _small_text(token_file).strip()
        except OSError as error:
            raise NotAllowed(
                f"the admin token {token_file} cannot be read: {error.strerror or error}",
                remedy="run the command as the user who started the coordinator",
            ) from error
        return cls(url, token, started_with=start)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def status(self) -> Status:
        """The one-screen answer."""
        return self._get("/v1/status", Status)

    def lines(self) -> list[LineRow]:
        """All lines."""
        return self._get("/v1/lines", list[LineRow])

    def jobs(
        self, *, state: str | None = None, line: str | None = None, kind: str | None = None, limit: int = 50
    ) -> list[JobRow]:
        """Jobs, newest first."""
        query = {"state": state, "line": line, "kind": kind, "limit": str(limit)}
        return self._get("/v1/jobs", list[JobRow], query)

    def nodes(self) -> list[NodeRow]:
        """All nodes."""
        return self._get("/v1/nodes", list[NodeRow])

    def models(self, *, line: str | None = None) -> list[ModelRow]:
        """Models, newest first."""
        return self._get("/v1/models", list[ModelRow], {"line": line})

    def events(self, *, of: str | None = None, after: int | None = None, limit: int = 200) -> list[EventRow]:
        """Events in the order of the log, after position `after`."""
        query = {"of": of, "after": None if after is None else str(after), "limit": str(limit)}
        return self._get("/v1/events", list[EventRow], query)

    def why(self, kind: str, subject_id: str) -> Why:
        """The explanation of one subject."""
        return self._get(f"/v1/why/{kind}/{subject_id}", Why)

    def report(self) -> Report:
        """The record of the run so far."""
        return self._get("/v1/report", Report)

    def stop(self, reason: str, *, phase: str = "draining") -> None:
        """Ask the loop to wind down: at once ("draining"), or after the ratings of its champions ("measuring")."""
        self._call("POST", "/v1/stop", body={"reason": reason, "phase": phase})

    def job(self, job_id: int) -> JobDetail:
        """All that is known of one job."""
        return self._get(f"/v1/jobs/{job_id}", JobDetail)

    def submit(self, jobs: list[object], producer: str) -> list[SubmittedJob]:
        """Store jobs, all or none, as they are written in a file."""
        return self._post("/v1/jobs", list[SubmittedJob], {"jobs": jobs, "producer": producer})

    def act(self, verb: str, job_id: int, reason: str) -> ActedRow:
        """Cancel, hold, release or retry one job."""
        return self._post(f"/v1/jobs/{job_id}/{verb}", ActedRow, {"reason": reason})

    def bulk_plan(self, verb: str, where: str, ids: list[int]) -> BulkPlan:
        """What an operation on many jobs would touch."""
        return self._post("/v1/bulk/plan", BulkPlan, {"verb": verb, "where": where, "ids": ids})

    def bulk_start(self, verb: str, where: str, ids: list[int], reason: str) -> BulkRow:
        """Start an operation on many jobs."""
        body: dict[str, object] = {"verb": verb, "where": where, "ids": ids, "reason": reason}
        return self._post("/v1/bulk", BulkRow, body)

    def bulk(self, bulk_id: int) -> BulkRow:
        """How far an operation on many jobs has come."""
        return self._get(f"/v1/bulk/{bulk_id}", BulkRow)

    def bulk_list(self) -> list[BulkRow]:
        """Operations on many jobs, newest first."""
        return self._get("/v1/bulk", list[BulkRow])

    def bulk_stop(self, bulk_id: int) -> BulkRow:
        """Stop an operation where it stands."""
        return self._post(f"/v1/bulk/{bulk_id}/stop", BulkRow, {})

    def exclude(self, node_id: str, for_s: float, because: str) -> NodeRow:
        """Grant nothing to a node for a while."""
        return self._post(f"/v1/nodes/{node_id}/exclude", NodeRow, {"for_s": for_s, "because": because})

    def allow(self, node_id: str) -> NodeRow:
        """End the exclusion of a node."""
        return self._post(f"/v1/nodes/{node_id}/allow", NodeRow, {})

    def _get(self, path: str, kind: type[T], query: dict[str, str | None] | None = None) -> T:
        return self._read(path, kind, self._call("GET", path, query=query))

    def _post(self, path: str, kind: type[T], body: dict[str, object]) -> T:
        return self._read(path, kind, self._call("POST", path, body=body))

    def _read(self, path: str, kind: type[T], answer: bytes) -> T:
        try:
            return TypeAdapter(kind).validate_json(answer)
        except ValidationError as error:
            first = error.errors()[0]
            raise GamekeeperError(
                f"the coordinator at {self.url} answered {path} in a form this version does not know"
                f" ({'.'.join(map(str, first['loc']))}: {first['msg']})",
                remedy="use the same gamekeeper version for the coordinator and the command line",
            ) from error

    def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | None] | None = None,
        body: dict[str, object] | None = None,
    ) -> bytes:
        params = {name: value for name, value in (query or {}).items() if value is not None}
        try:
            with self._client.stream(method, path, params=params, json=body) as response:
                content = b"".join(_bounded(response.iter_bytes()))
                status = response.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(
                f"no coordinator answers at {self.url} ({str(error) or type(error).__name__})",
                remedy=f"is it running? start it with: {self._start_hint}",
            ) from error
        if status < 400:
            return content
        raise _error_of(self.url, path, status, content)


def announced_url(data_dir: Path) -> str | None:
    """The address that the coordinator of `data_dir` announced; `None` when there is no announcement."""
    with contextlib.suppress(OSError, ValueError):
        document = json.loads(_small_text(data_dir / "coordinator.json"))
        if isinstance(document, dict) and isinstance(document.get("url"), str):
            return str(document["url"])
    return None


def _small_text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_SMALL_FILE).decode("utf-8", "replace")


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > MAX_ANSWER:
            raise GamekeeperError(
                f"the answer is longer than {MAX_ANSWER} bytes", remedy="ask for less, with --limit"
            )
        yield chunk


def _error_of(url: str, path: str, status: int, content: bytes) -> GamekeeperError:
    """The typed error that an error answer stands for."""
    document: object = None
    with contextlib.suppress(ValueError):
        document = json.loads(content)
    if not isinstance(document, dict) or "code" not in document:
        if status in (401, 403):
            return NotAllowed(f"the coordinator at {url} refused the token for {path}")
        return GamekeeperError(f"the coordinator at {url} answered {status} to {path}")
    error = from_json(document)
    wait = document.get("retry_after_s")
    if isinstance(error, Busy) and isinstance(wait, int | float):
        error.retry_after_s = float(wait)
    return error
