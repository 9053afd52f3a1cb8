"""The folder of one attempt: what the agent, the warden and the job write in it, read with suspicion.

    attempts/23/grant.json     the grant, so that a later agent process can go on with it
    attempts/23/…              the warden's files: see `gamekeeper.agent.warden`
    attempts/23/job/           what the job sees: parameters.json, inputs/, outbox/, progress.json, stop, receipt.json

A job is not trusted: its files are read only when they are plain files of bounded size, and never through a link.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue, ValidationError

from gamekeeper.agent.endings import Exit
from gamekeeper.agent.messages import Progressed
from gamekeeper.core.errors import Corrupt, UsageError
from gamekeeper.core.jobs import ProcessIdentity
from gamekeeper.protocol import Grant, InputFile

JOB_CONTRACT = 1
RECEIPT_BYTES = 4 << 20
PROGRESS_BYTES = 64 << 10
GRANT_BYTES = 64 << 20
ERRORS_BYTES = 1500
FIGURES_MOST = 32
DEPTH_MOST = 64
_DEADLINE_BYTES = 96


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    """What identity.json says: who the warden and the job are, and since when (boot seconds)."""

    warden: ProcessIdentity
    job: ProcessIdentity
    started_at: float


@dataclass(frozen=True, slots=True)
class AttemptDir:
    """The paths of one attempt."""

    root: Path

    @property
    def attempt(self) -> int:
        """The attempt's number, which is the folder's name."""
        return int(self.root.name)

    @property
    def job(self) -> Path:
        """The folder the job sees."""
        return self.root / "job"

    @property
    def outbox(self) -> Path:
        """Where the job puts sealed files."""
        return self.job / "outbox"

    @property
    def lock(self) -> Path:
        """Held by the warden as long as it lives."""
        return self.root / "lock"

    def make(self, grant: Grant) -> None:
        """Make the folders and record the grant. Raises `OSError`."""
        for folder in (self.root, self.job, self.job / "inputs", self.outbox):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self.root / "grant.json", grant.model_dump_json().encode())

    def input_path(self, file: InputFile) -> Path:
        """Where an input lies: named by its hash, with the extension of its name."""
        suffix = Path(file.name).suffix
        return self.job / "inputs" / f"{file.hash}{suffix if suffix[1:].isalnum() else ''}"

    def write_parameters(self, grant: Grant, threads: int) -> None:
        """Write parameters.json, the job's side of the contract. Raises `OSError`."""
        inputs: dict[str, JsonValue] = {
            role: [
                {
                    "path": str(self.input_path(file).relative_to(self.job)),
                    "hash": file.hash,
                    "bytes": file.bytes,
                    "metadata": file.metadata,
                }
                for file in files
            ]
            for role, files in grant.inputs.items()
        }
        document: dict[str, JsonValue] = {
            "protocol": JOB_CONTRACT,
            "job": grant.job,
            "attempt": grant.attempt,
            "token": grant.token,
            "kind": grant.kind,
            "line": grant.line,
            "seed": grant.seed,
            "threads": threads,
            "grace_s": grant.grace_s,
            "parameters": grant.parameters,
            "wanted": grant.wanted,
            "inputs": inputs,
        }
        _write(self.job / "parameters.json", json.dumps(document, indent=1).encode())

    def write_deadline(self, stop_at: float, gone_by: float) -> None:
        """Move the warden's deadline (boot seconds). Overwrites in place: that works on a full disk, too."""
        pair = f"{stop_at:.3f} {gone_by:.3f}"
        record = f"{pair} {pair}".ljust(_DEADLINE_BYTES - 1) + "\n"
        fd = os.open(self.root / "deadline", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(fd, record.encode(), 0)
        finally:
            os.close(fd)

    def grant(self) -> Grant:
        """The recorded grant. Raises `Corrupt` when it cannot be read."""
        try:
            return Grant.model_validate_json(_read(self.root / "grant.json", GRANT_BYTES))
        except (OSError, UsageError, ValidationError) as error:
            raise Corrupt(f"{self.root / 'grant.json'} cannot be read: {error}") from None

    def processes(self) -> ProcessRecord | None:
        """Who runs it, or `None` when no process was ever recorded or the record makes no sense."""
        try:
            document = _json(self.root / "identity.json", PROGRESS_BYTES)
            boot_id = document["boot_id"]
            warden, job = (
                ProcessIdentity(str(boot_id), _whole(part["pid"]), _whole(part["start_ticks"]))
                for part in (_mapping(document["warden"]), _mapping(document["job"]))
            )
            return ProcessRecord(warden, job, _number(document["started_at"]))
        except (OSError, UsageError, KeyError):
            return None

    def exit(self) -> Exit | None:
        """How it ended, with its receipt; `None` when the warden recorded no end."""
        try:
            document = _json(self.root / "exit.json", PROGRESS_BYTES)
            code, number = document["exit_code"], document["signal"]
            seconds = _number(document["ended_at"]) - _number(document["started_at"])
            receipt, problem = self.receipt()
            detail = "; ".join(part for part in (str(document["detail"]), problem) if part)
            return Exit(
                str(document["cause"]),
                None if code is None else _whole(code),
                None if number is None else _whole(number),
                detail,
                receipt,
                self.last_errors(),
                process_s=max(0.0, seconds),
            )
        except (OSError, UsageError, KeyError):
            return None

    def receipt(self) -> tuple[JsonValue, str]:
        """The decoded receipt, or `None` with what is wrong with it ("" when there is none)."""
        try:
            return decode(_read(self.job / "receipt.json", RECEIPT_BYTES)), ""
        except FileNotFoundError:
            return None, ""
        except (OSError, UsageError) as error:
            return None, f"receipt.json: {error}"

    def progress(self) -> Progressed | None:
        """What the job last said of its progress, cut to what a beat may carry; `None` when that is nothing."""
        try:
            document = _json(self.job / "progress.json", PROGRESS_BYTES)
            units = _whole(document["units"])
        except (OSError, UsageError, KeyError):
            return None
        figures = document.get("figures")
        kept: dict[str, float] = {}
        for name, value in figures.items() if isinstance(figures, dict) else ():
            usable = isinstance(value, int | float) and len(name) <= 40
            if usable and len(kept) < FIGURES_MOST and math.isfinite(_clipped(value)):
                kept[name] = _clipped(value)
        note = document.get("note")
        return Progressed(self.attempt, max(0, units), note[:200] if isinstance(note, str) else "", kept)

    def last_errors(self) -> str:
        """The end of the job's standard error, as text."""
        text = b""
        for name in ("stderr.older", "stderr.tail", "stderr"):
            try:
                with (self.root / name).open("rb") as file:
                    size = file.seek(0, os.SEEK_END)
                    file.seek(max(0, size - ERRORS_BYTES))
                    piece = file.read(ERRORS_BYTES)
            except OSError:
                continue
            text = text + piece if name == "stderr.tail" else text or piece
        return text[-ERRORS_BYTES:].decode("utf-8", "replace").strip()


def decode(data: bytes) -> JsonValue:
    """Decode JSON that can be sent on: finite numbers, whole characters, at most `DEPTH_MOST` levels.

    Raises `UsageError`.
    """
    try:
        document: JsonValue = json.loads(data)
        json.dumps(document, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise UsageError(f"not JSON ({_printable(str(error))[:200]})") from None
    if _depth(document) > DEPTH_MOST:
        raise UsageError(f"nested deeper than {DEPTH_MOST} levels")
    return document


def _depth(document: JsonValue) -> int:
    depth, level = 0, [document]
    while level and depth <= DEPTH_MOST:
        depth += 1
        lists = [value for value in level if isinstance(value, list)]
        maps = [value for value in level if isinstance(value, dict)]
        level = [item for value in lists for item in value] + [v for m in maps for v in m.values()]
    return depth


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a plain file. Raises `UsageError` when it is something else or longer than `most`, `OSError`."""
    return _read(path, most)


def _json(path: Path, most: int) -> Mapping[str, JsonValue]:
    return _mapping(decode(_read(path, most)))


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    if not isinstance(value, dict):
        raise UsageError("not a JSON object")
    return value


def _whole(value: JsonValue) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 1 << 62:
        raise UsageError("not a whole number")
    return value


def _number(value: JsonValue) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise UsageError("not a number")
    return float(value)


def _clipped(value: JsonValue) -> float:
    """A number as a float; an integer too large for one is infinite."""
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return math.inf


def _read(path: Path, most: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UsageError("not a plain file")
        data = file.read(most + 1)
    if len(data) > most:
        raise UsageError(f"longer than {most} bytes")
    return data


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    os.replace(part, path)
