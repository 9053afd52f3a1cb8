"""The catalogue of verified files: what was accepted, from whom, and how much of it each line has."""

from __future__ import annotations

from dataclasses import dataclass

from gamekeeper.core.artifacts import Artifact, ArtifactKind, Manifest
from gamekeeper.core.events import ArtifactAccepted, ArtifactRefused
from gamekeeper.store import attempts as tries
from gamekeeper.store.encoding import object_of, sentence, to_json
from gamekeeper.store.schema import artifacts as artifact_table
from gamekeeper.store.schema import refusals as refusal_table
from gamekeeper.store.session import Reading, Row, Writing
from gamekeeper.store.statements import adding, sql

_PAGE = 256

_HASHES = sql("SELECT hash FROM artifacts ORDER BY hash")
_FIND = sql("SELECT id FROM artifacts WHERE hash = :hash AND line = :line AND kind = :kind")
_ADD = adding(artifact_table, returning="id")
_ADD_SOURCE = sql(
    "INSERT INTO artifact_sources (attempt_id, artifact_id) VALUES (:attempt_id, :artifact_id)"
    " ON CONFLICT (attempt_id, artifact_id) DO NOTHING"
)
_COUNT = sql(
    "INSERT INTO line_counts (line, kind, files, bytes, games, samples)"
    " VALUES (:line, :kind, 1, :bytes, :games, :samples) ON CONFLICT (line, kind) DO UPDATE SET"
    " files = line_counts.files + 1, bytes = line_counts.bytes + :bytes, games = line_counts.games + :games,"
    " samples = line_counts.samples + :samples"
)
_REFUSED = sql("SELECT id FROM refusals WHERE attempt_id = :attempt_id AND hash = :hash")
_ADD_REFUSAL = adding(refusal_table)
_BY_HASH = sql("SELECT * FROM artifacts WHERE hash = :hash ORDER BY id LIMIT 1")
_BY_ATTEMPT = sql(
    "SELECT f.* FROM artifact_sources s JOIN artifacts f ON f.id = s.artifact_id"
    " WHERE s.attempt_id = :attempt_id ORDER BY f.id"
)
_REFUSALS_OF = sql("SELECT * FROM refusals WHERE attempt_id = :attempt_id ORDER BY id")
_SHARDS_BEFORE = sql(
    "SELECT * FROM artifacts WHERE line = :line AND kind = 'shard' AND id < :before ORDER BY id DESC LIMIT :page"
)
_LINE_COUNTS = sql("SELECT kind, files, bytes, games, samples FROM line_counts WHERE line = :line")
_ALL_COUNTS = sql("SELECT line, kind, files, bytes, games, samples FROM line_counts ORDER BY line, kind")
_EVERY_ID = 2**62


@dataclass(frozen=True, slots=True)
class LineCounts:
    """What a line has in verified files: `games` and `samples` are those of its shards, `bytes` and `files` of all."""

    games: int = 0
    samples: int = 0
    shards: int = 0
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that was turned away, with the class of the problem and its words."""

    attempt_id: int
    hash: str
    kind: ArtifactKind
    name: str
    problem: str
    detail: str
    refused_at: float


def register(
    w: Writing, attempt_id: int, token: int, manifest: Manifest, *, games: int, samples: int
) -> bool:
    """Make a verified file visible as the work of a live attempt; whether it was not known in this line before.

    The same bytes count once a line and kind, whoever hands them in, and are proof for every attempt that did. Raises
    `StaleToken` when the attempt is over or held under another token; `NotFound`.
    """
    row = tries.guard(w, attempt_id, token)
    kind, line = manifest.kind, row["line"]
    known = w.number(_FIND, hash=manifest.hash, line=line, kind=kind)
    artifact_id = known or w.number(
        _ADD, hash=manifest.hash, kind=kind, line=line, name=manifest.name, bytes=manifest.bytes, games=games,
        samples=samples, attempt_id=attempt_id, node_id=row["node_id"], metadata=to_json(manifest.metadata),
        created_at=w.now,
    )  # fmt: skip
    w.run(_ADD_SOURCE, attempt_id=attempt_id, artifact_id=artifact_id)
    if known:
        return False
    w.run(_COUNT, line=line, kind=kind, bytes=manifest.bytes, games=games, samples=samples)
    w.emit(ArtifactAccepted(manifest.hash, str(kind), line, row["job_id"], manifest.bytes, games, samples))
    return True


def refuse(w: Writing, attempt_id: int, token: int, manifest: Manifest, *, problem: str, detail: str) -> bool:
    """Note that a file of a live attempt was turned away; False when that was noted before.

    Raises `StaleToken` when the attempt is over or held under another token; `NotFound`.
    """
    row = tries.guard(w, attempt_id, token)
    if w.number(_REFUSED, attempt_id=attempt_id, hash=manifest.hash):
        return False
    problem, detail = sentence(problem, 100), sentence(detail)
    w.run(
        _ADD_REFUSAL, attempt_id=attempt_id, hash=manifest.hash, kind=manifest.kind, name=manifest.name,
        bytes=manifest.bytes, problem=problem, detail=detail, refused_at=w.now,
    )  # fmt: skip
    w.emit(
        ArtifactRefused(
            manifest.hash, str(manifest.kind), row["line"], row["job_id"], row["node_id"], problem, detail
        )
    )
    return True


def get(r: Reading, file_hash: str) -> Artifact | None:
    """The verified file of this hash, as it was first handed in."""
    row = r.first(_BY_HASH, hash=file_hash)
    return None if row is None else _artifact(row)


def hashes(r: Reading) -> list[str]:
    """The hashes of all accepted artifacts. Reads the whole catalogue: for audits, not for the loop."""
    return [str(row["hash"]) for row in r.rows(_HASHES)]


def by_attempt(r: Reading, attempt_id: int) -> list[Artifact]:
    """All verified files an attempt handed in, those included that were known before."""
    return [_artifact(row) for row in r.rows(_BY_ATTEMPT, attempt_id=attempt_id)]


def refusals_of(r: Reading, attempt_id: int) -> list[Refusal]:
    """All files of an attempt that were turned away, in order."""
    return [
        Refusal(
            row["attempt_id"], row["hash"], ArtifactKind(row["kind"]), row["name"], row["problem"], row["detail"],
            row["refused_at"],
        )
        for row in r.rows(_REFUSALS_OF, attempt_id=attempt_id)
    ]  # fmt: skip


def newest_shards(r: Reading, line: str, samples: int) -> list[Artifact]:
    """The newest shards of a line that together hold at least `samples` samples (or all there are), oldest first."""
    found: list[Artifact] = []
    total, before = 0, _EVERY_ID
    while total < samples:
        page = r.rows(_SHARDS_BEFORE, line=line, before=before, page=_PAGE)
        if not page:
            break
        for row in page:
            if total >= samples:
                break
            found.append(_artifact(row))
            total += row["samples"]
            before = row["id"]
    return found[::-1]


def line_counts(r: Reading, line: str) -> LineCounts:
    """What a line has; kept incrementally."""
    return _added(r.rows(_LINE_COUNTS, line=line))


def all_line_counts(r: Reading) -> dict[str, LineCounts]:
    """What every line has that has anything, by line."""
    by_line: dict[str, list[Row]] = {}
    for row in r.rows(_ALL_COUNTS):
        by_line.setdefault(row["line"], []).append(row)
    return {line: _added(rows) for line, rows in by_line.items()}


def _added(rows: list[Row]) -> LineCounts:
    shards = next((row for row in rows if row["kind"] == ArtifactKind.SHARD), None)
    return LineCounts(
        games=shards["games"] if shards else 0,
        samples=shards["samples"] if shards else 0,
        shards=shards["files"] if shards else 0,
        files=sum(row["files"] for row in rows),
        bytes=sum(row["bytes"] for row in rows),
    )


def _artifact(row: Row) -> Artifact:
    return Artifact(
        hash=row["hash"], kind=ArtifactKind(row["kind"]), line=row["line"], name=row["name"], bytes=row["bytes"],
        games=row["games"], samples=row["samples"], attempt_id=row["attempt_id"], node_id=row["node_id"],
        metadata=object_of(row["metadata"]), created_at=row["created_at"],
    )  # fmt: skip
