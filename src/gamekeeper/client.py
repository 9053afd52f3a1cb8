"""What a job program needs: its parameters, its inputs, progress, sealed outputs and the receipt.

A job is any process an agent starts in a job folder. Everything passes through files in that folder, so that
a program in any language can do the same; this module is the Python form of that contract. It uses the
standard library and BLAKE3 only and imports fast, because a short job pays for its imports every time.

    job = Job.from_environment()
    games = job.wanted("games", int)
    ...
    shard = job.publish_shard("games-0001.npz", write, games=games, samples=samples)
    job.hand_in(games=games, samples=samples, shards=[shard])

An output counts once its seal exists: the data is written to a temporary name, flushed to the disk, renamed,
and only then sealed. The receipt comes last; a job that ends without one has failed, whatever its exit code.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from blake3 import blake3

from gamekeeper.core.clock import SystemClock
from gamekeeper.core.errors import GamekeeperError
from gamekeeper.core.receipts import BUILT_IN_KINDS, Proof, examine

JOB_DIR_VARIABLE = "GAMEKEEPER_JOB_DIR"
PROTOCOL = 1
PARAMETERS_BYTES_MAX = 32 * 1024 * 1024
PROGRESS_PERIOD_S = 0.25

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HASH_CHUNK = 1 << 20
_monotonic = SystemClock().monotonic

T = TypeVar("T", bool, int, float, str)
Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Write = Callable[[BinaryIO], object]


class ClientError(GamekeeperError):
    """A job cannot go on: what is wrong, and what to do about it."""

    code = "client"

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy=remedy)


@dataclass(frozen=True, slots=True)
class Input:
    """One verified file handed to the job; `metadata` is what its producer stated when sealing it."""

    path: Path
    hash: str
    bytes: int
    metadata: Mapping[str, Json]


class Job:
    """One attempt at a job, seen from inside the job process."""

    def __init__(
        self,
        folder: Path,
        spec: Mapping[str, Json],
        *,
        monotonic: Callable[[], float] = _monotonic,
    ) -> None:
        """`spec` is the decoded parameters file; `monotonic` is seconds from a clock that never goes back."""
        self.folder = folder
        self._monotonic = monotonic
        self._stop_signalled = False
        protocol = _field(spec, "protocol", int)
        if protocol != PROTOCOL:
            raise ClientError(
                f"The job folder speaks protocol {protocol}, this client speaks {PROTOCOL}.",
                "install the same gamekeeper version for the agent and for the job program.",
            )
        self.id = _field(spec, "job", int)
        self.attempt = _field(spec, "attempt", int)
        self.kind = _field(spec, "kind", str)
        self.line = _field(spec, "line", str)
        self.seed = _field(spec, "seed", int)
        self.threads = _field(spec, "threads", int)
        self.grace_s = _field(spec, "grace_s", float)
        self._parameters = _table(spec, "parameters")
        self._wanted = _table(spec, "wanted")
        self._inputs = {
            role: _read_inputs(folder, role, rows) for role, rows in _table(spec, "inputs").items()
        }
        self._published: set[str] = set()
        self._progress_at: float | None = None
        self._progress_waiting: dict[str, Json] | None = None
        self._units = 0
        self._handed_in = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Job:
        """The job this process was started for. From here on SIGTERM means `should_stop()`.

        Raises ClientError when the process was not started by an agent or its parameters cannot be read.
        """
        stated = environment.get(JOB_DIR_VARIABLE)
        if not stated:
            raise ClientError(
                f"{JOB_DIR_VARIABLE} is not set: this program is a job and was not started by an agent.",
                "let an agent start it, or set the variable to a folder that holds a parameters.json.",
            )
        folder = Path(stated)
        if not folder.is_absolute() or not folder.is_dir():
            raise ClientError(
                f"{JOB_DIR_VARIABLE}={stated!r} is not the absolute path of a folder.",
                "set it to the job folder the agent made.",
            )
        job = cls(folder, _read_parameters(folder / "parameters.json"))
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda _number, _frame: job._on_stop_signal())
        return job

    def parameter(self, name: str, kind: type[T], default: T | None = None) -> T:
        """A value of the stage's `parameters` table. Without a default the value must be there."""
        if name not in self._parameters and default is not None:
            return default
        return _field(self._parameters, name, kind, "parameters")

    def wanted(self, name: str, kind: type[T]) -> T:
        """A value of what the loop wants from this job, such as `games`."""
        return _field(self._wanted, name, kind, "wanted")

    def inputs(self, role: str) -> list[Input]:
        """The input files of one role, in the order given (shards: oldest first); empty when none."""
        return list(self._inputs.get(role, ()))

    def input(self, role: str) -> Input:
        """The one input file of a role; an error when there is not exactly one."""
        found = self._inputs.get(role, ())
        if len(found) != 1:
            raise ClientError(
                f"The {self.kind} job {self.id} needs exactly one input {role!r} and was given {len(found)}.",
                f"check which stage the line's settings name for this kind (given: {sorted(self._inputs)}).",
            )
        return found[0]

    def progress(self, units: int, note: str = "", **figures: float) -> None:
        """State how far the job is; `units` is cumulative and never falls. Written at most every 0.25 s."""
        if units < self._units:
            raise ClientError(
                f"Progress went back from {self._units} to {units} units.",
                "report cumulative units, not the increase.",
            )
        self._units = units
        clean: dict[str, Json] = {key: float(value) for key, value in figures.items()}
        self._progress_waiting = {"units": units, "note": note, "figures": clean}
        now = self._monotonic()
        if self._progress_at is None or now - self._progress_at >= PROGRESS_PERIOD_S:
            self._progress_at = now
            self._write_progress()

    def should_stop(self) -> bool:
        """True once the agent asked the job to finish early: hand in what is there, then end."""
        return self._stop_signalled or (self.folder / "stop").exists()

    def publish_shard(self, name: str, write: Write, *, games: int, samples: int) -> str:
        """Seal a file of training data written by `write(file)`; returns its BLAKE3 hash."""
        _check_counts(games=games, samples=samples)
        return self._publish(name, write, "shard", {"games": games, "samples": samples})

    def publish_model(
        self,
        name: str,
        write: Write,
        *,
        architecture: str,
        parent: str | None,
        steps: int,
        loss: float | None,
        weights: int,
    ) -> str:
        """Seal model weights; `parent` is the hash it came from, `weights` the number of weights."""
        _check_counts(weights=weights)
        metadata: dict[str, Json] = {
            "architecture": architecture,
            "parent": parent,
            "steps": steps,
            "loss": loss,
            "weights": weights,
        }
        return self._publish(name, write, "model", metadata)

    def publish_matches(self, name: str, write: Write, *, pairs: int) -> str:
        """Seal a record of the games of `pairs` game pairs."""
        _check_counts(pairs=pairs)
        return self._publish(name, write, "matches", {"pairs": pairs})

    def publish_checkpoint(self, name: str, write: Write, **metadata: bool | int | float | str | None) -> str:
        """Seal the state of unfinished work, for a later attempt."""
        return self._publish(name, write, "checkpoint", dict(metadata))

    def hand_in(self, **evidence: Json) -> None:
        """Write the receipt, the typed proof with which the job ends. Hollow evidence raises."""
        if self._handed_in:
            raise ClientError("The receipt was already handed in.", "call hand_in once, at the very end.")
        _check_receipt(self.kind, evidence)
        self._check_published(evidence)
        if self._progress_waiting is not None:
            self._write_progress()
        _write_atomic(self.folder / "receipt.json", _encode(evidence, "the receipt"), durable=True)
        self._handed_in = True

    def _on_stop_signal(self) -> None:
        self._stop_signalled = True

    def _check_published(self, evidence: Mapping[str, Json]) -> None:
        shards = evidence.get("shards")
        claimed = [*(shards if isinstance(shards, list) else []), evidence.get("model")]
        for item in claimed:
            if isinstance(item, str) and self.kind in BUILT_IN_KINDS and item not in self._published:
                raise ClientError(
                    f"The receipt names {item[:12]}…, which this job did not publish.",
                    "hand in the hashes returned by publish_shard and publish_model.",
                )

    def _write_progress(self) -> None:
        waiting, self._progress_waiting = self._progress_waiting, None
        _write_atomic(self.folder / "progress.json", _encode(waiting, "progress"), durable=False)

    def _publish(self, name: str, write: Write, artifact: str, metadata: dict[str, Json]) -> str:
        if not _NAME.fullmatch(name) or name.endswith((".seal", ".part")):
            raise ClientError(
                f"{name!r} cannot be the name of an output.",
                "use letters, digits, '.', '_' and '-', not starting with '.' nor ending in .seal or .part.",
            )
        outbox = self.folder / "outbox"
        final, part = outbox / name, outbox / f".{name}.part"
        seal = outbox / f"{name}.seal"
        if final.exists() or seal.exists():
            raise ClientError(f"Output {name!r} was already published.", "give every output its own name.")
        stated = _encode(metadata, f"the metadata of {name}")
        try:
            outbox.mkdir(exist_ok=True)
            digest, size = _write_data(part, write)
            part.rename(final)
            _sync_folder(outbox)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise _write_error(final, error) from error
        body: dict[str, Json] = {
            "artifact": artifact,
            "bytes": size,
            "hash": digest,
            "metadata": json.loads(stated),
        }
        _write_atomic(seal, _encode(body, "the seal"), durable=True)
        self._published.add(digest)
        return digest


def run(stage: Callable[[Job], object]) -> int:
    """Run a stage program's body with the job of this process; returns the exit code.

    A ClientError becomes one clear line on standard error. Any other exception is left to Python, whose
    traceback belongs in the job's log.
    """
    try:
        stage(Job.from_environment())
    except ClientError as error:
        sys.stderr.write(f"error: {error.message} Remedy: {error.remedy}\n")
        return error.exit_code
    return 0


def _check_receipt(kind: str, evidence: Mapping[str, Json]) -> None:
    """Kinds that are not built in are a user's own; their schema is checked by the coordinator."""
    if kind in BUILT_IN_KINDS:
        finding = examine(BUILT_IN_KINDS[kind], evidence)
        if finding.proof is not Proof.GOOD:
            raise _hollow("; ".join(finding.problems))
    elif not evidence:
        raise _hollow(f"the {kind} receipt is empty")


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise _hollow(f"{name} must be an integer above 0, not {value!r}")


def _hollow(reason: object) -> ClientError:
    return ClientError(
        f"The evidence does not hold: {reason}.",
        "hand in what the job really made; if it made nothing, fail.",
    )


def content_hash(data: bytes) -> str:
    """The BLAKE3 hash of the data in hexadecimal digits, as receipts and seals name content."""
    return blake3(data).hexdigest()


# --- reading ----------------------------------------------------------------------------------------------


def _read_parameters(path: Path) -> dict[str, Json]:
    remedy = "the agent writes this file; look at the attempt's folder and at the agent's log."
    try:
        if path.stat().st_size > PARAMETERS_BYTES_MAX:
            raise ClientError(f"{path} is larger than {PARAMETERS_BYTES_MAX} bytes.", remedy)
        spec = json.loads(path.read_bytes())
    except OSError as error:
        raise ClientError(f"{path} cannot be read: {error.strerror}.", remedy) from error
    except ValueError as error:
        raise ClientError(f"{path} is not valid JSON: {error}.", remedy) from error
    if not isinstance(spec, dict):
        raise ClientError(f"{path} holds no JSON object.", remedy)
    return spec


def _field(table: Mapping[str, Json], name: str, kind: type[T], where: str = "parameters.json") -> T:
    if name not in table:
        raise ClientError(
            f"{where} holds no {name!r} (it has {sorted(table)}).",
            f"set {name} in the settings of this stage.",
        )
    value = table[name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return kind(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ClientError(
            f"{name!r} in {where} must be {kind.__name__}, not {value!r}.", f"correct {name} in the settings."
        )
    return value


def _table(spec: Mapping[str, Json], name: str) -> dict[str, Json]:
    value = spec.get(name)
    if not isinstance(value, dict):
        raise ClientError(
            f"{name!r} in parameters.json must be an object, not {value!r}.", "check the agent's log."
        )
    return value


def _read_inputs(folder: Path, role: str, rows: Json) -> tuple[Input, ...]:
    if not isinstance(rows, list):
        raise ClientError(f"The inputs {role!r} must be a list, not {rows!r}.", "check the agent's log.")
    return tuple(_read_input(folder, role, row) for row in rows)


def _read_input(folder: Path, role: str, row: Json) -> Input:
    if not isinstance(row, dict):
        raise ClientError(f"An input {role!r} must be an object, not {row!r}.", "check the agent's log.")
    where = f"input {role!r}"
    stated = Path(_field(row, "path", str, where))
    if stated.is_absolute() or ".." in stated.parts:
        raise ClientError(
            f"The path {str(stated)!r} of {where} leaves the job folder.", "check the agent's log."
        )
    size, digest = _field(row, "bytes", int, where), _field(row, "hash", str, where)
    path = folder / stated
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        raise ClientError(
            f"{where.capitalize()} {path} should hold {size} bytes and holds {found}.",
            "the agent's fetch of it was not finished or was disturbed: let the job be tried again.",
        )
    return Input(path, digest, size, _table(row, "metadata"))


# --- writing ----------------------------------------------------------------------------------------------


def _encode(value: Json | Mapping[str, Json], what: str) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ClientError(
            f"{what.capitalize()} cannot be written as JSON: {error}.", "use finite numbers, texts and lists."
        ) from error


def _write_data(path: Path, write: Write) -> tuple[str, int]:
    """Write and flush a data file; returns (hash, bytes) of what the disk holds, read back after writing."""
    with path.open("w+b") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        digest, size = blake3(), 0
        file.seek(0)
        while chunk := file.read(_HASH_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _write_atomic(path: Path, body: bytes, *, durable: bool) -> None:
    """Replace a small file in one step: readers and crashes see the old or the new text, whole."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(body)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.rename(path)
        if durable:
            _sync_folder(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _write_error(path, error) from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_error(path: Path, error: OSError) -> ClientError:
    return ClientError(
        f"{path} could not be written: {error.strerror or error}.",
        "free space on the disk of the job folder and check its permissions; nothing half-written counts.",
    )
