"""`why`: the explanation of one job, model, line or node."""

from __future__ import annotations

from typing import Annotated

import typer

from gamekeeper.cli.options import DataDirOption, JsonOption, connect
from gamekeeper.cli.render import Output


def why(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="job, model, line or node; or KIND/ID in one word.")
    ],
    subject_id: Annotated[
        str | None,
        typer.Argument(metavar="ID", help="Its number or name; a unique prefix of a hash or node id."),
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain one thing: its state, the numbers that were compared, and its story."""
    from gamekeeper.cli import subjects
    from gamekeeper.cli.explanation import why_page
    from gamekeeper.core.clock import SystemClock

    subject = subjects.parse_subject(kind, subject_id, kinds=subjects.KINDS)
    output = Output(json=as_json)
    with connect(data_dir) as coordinator:
        subject = subjects.resolve(coordinator, subject)
        answer = coordinator.why(subject.kind, subject.id)
    if as_json:
        output.data(answer)
    else:
        output.show(why_page(output.page(), answer, SystemClock().now()))
        output.hint(answer.hint)
