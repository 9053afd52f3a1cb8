"""Pages about one job and about operations on many."""

from __future__ import annotations

from collections.abc import Sequence

from gamekeeper.cli import tables, units
from gamekeeper.cli.render import Page
from gamekeeper.cli.tables import right, state
from gamekeeper.inspection import BulkPlan, BulkRow, JobDetail


def job_page(page: Page, detail: JobDetail, now: float) -> Page:
    """All that is known of a job."""
    job = detail.job
    why = f": {job.why}" if job.why else ""
    page.line(f"job {job.id} {job.kind} of {job.line} is {job.state}{why}", "bold")
    facts = [
        ("purpose", job.purpose),
        ("command", " ".join(detail.command)),
        ("wanted", tables.fact(detail.wanted) if detail.wanted else ""),
        ("requirements", ", ".join(f"{name} {value}" for name, value in detail.requirements.items())),
        ("key", detail.key or ""),
        ("producer", detail.producer),
        ("failures", f"{job.failures} of {detail.failures_allowed} allowed"),
        ("losses", f"{job.losses} of {detail.losses_allowed} allowed"),
        ("not before", units.clock_time(detail.not_before) if detail.not_before > now else ""),
        ("deadline", "" if detail.deadline is None else units.clock_time(detail.deadline)),
        ("retry of", "" if detail.retry_of is None else f"job {detail.retry_of}"),
        ("retried as", "" if detail.successor is None else f"job {detail.successor}"),
        ("needed by", ", ".join(f"job {one}" for one in detail.needed_by)),
    ]
    wide = max(len(name) for name, _ in facts)
    for name, value in facts:
        if value:
            page.parts((f"  {name:<{wide}}  ", "dim"), (value, ""))
    if detail.needs:
        page.line()
        page.table(
            ("NEEDS", "STATE", "MET", "OTHERWISE"),
            [
                (
                    right(str(need.job)),
                    state(need.state or "not kept"),
                    "yes" if need.met else "no",
                    need.rule,
                )
                for need in detail.needs
            ],
            indent=2,
        )
    if detail.attempts:
        page.line()
        tables.attempts_table(page, detail.attempts, now, indent=2)
    return page


def plan_page(page: Page, plan: BulkPlan) -> Page:
    """What an operation on many jobs would touch."""
    page.line(f"{plan.verb}: {units.count(plan.jobs)} jobs ({plan.filter})", "bold")
    if plan.counts:
        page.table(
            ("STATE", "KIND", "LINE", "JOBS"),
            [(state(one.state), one.kind, one.line, right(units.count(one.jobs))) for one in plan.counts],
            indent=2,
        )
        page.line()
        page.table(
            ("E.G. JOB", "KIND", "LINE", "STATE", "WHY"),
            [
                (right(str(one.id)), one.kind, one.line, state(one.state), one.reason or "-")
                for one in plan.samples
            ],
            indent=2,
        )
    return page


def bulk_table(page: Page, rows: Sequence[BulkRow], now: float) -> Page:
    """Operations on many jobs."""
    head = ("BULK", "VERB", "STATE", "LOOKED AT", "CHANGED", "SKIPPED", "AGE", "FILTER")
    page.table(
        head,
        [
            (
                right(str(row.id)), row.verb, state(row.state), right(f"{row.looked_at:.0%}"),
                right(units.count(row.changed)), right(units.count(row.skipped)),
                right(units.duration(now - row.created_at)), row.filter,
            )
            for row in rows
        ],
    )  # fmt: skip
    return page
