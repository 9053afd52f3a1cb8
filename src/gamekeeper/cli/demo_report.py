"""The report at the end of a demo: made from the store after everything stopped, with the data hashed again."""

from __future__ import annotations

from pathlib import Path

from gamekeeper.cli import files
from gamekeeper.cli.audit import audit
from gamekeeper.cli.report_html import report_html
from gamekeeper.core.clock import Clock
from gamekeeper.inspection import Report


def closing_report(data_dir: Path, config: Path, clock: Clock) -> Report:
    """What the runs on this data directory achieved. Nothing else may have the store open.

    `lost_artifacts` and `unverified_visible` are measured here: every visible file is read and hashed.
    """
    from gamekeeper.server import reporting
    from gamekeeper.settings import load
    from gamekeeper.store import artifacts
    from gamekeeper.store.engine import Store

    database = data_dir / "gamekeeper.db"
    if not database.exists():
        return Report(
            lines=[], jobs=dict.fromkeys(("done", "failed", "hollow", "lost"), 0), slot_utilisation=None, seconds=0.0,
            bytes_verified=0, lost_artifacts=0, unverified_visible=0,
        )  # fmt: skip
    settings = load(config)
    with Store.open(database, clock) as store:
        report, catalogued = store.read(
            lambda r: (reporting.report(r, settings, reporting.FileAudit()), artifacts.hashes(r))
        )
    found = audit(data_dir / "artifacts" / "blake3", catalogued)
    return report.model_copy(
        update={"lost_artifacts": len(found.lost), "unverified_visible": len(found.unverified)}
    )


def write_report(data_dir: Path, report: Report) -> None:
    """Write report.json and report.html into the data directory."""
    files.write_whole(data_dir / "report.json", report.model_dump_json(indent=2) + "\n")
    files.write_whole(data_dir / "report.html", report_html(report))
