"""The log of a process: structured lines on stderr, for people or for machines, never with a secret in them."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import TextIO

import structlog

SECRET_KEYS = re.compile(r"token$|credential|authorization|password|secret", re.IGNORECASE)
BEARER = re.compile(r"(?i)(bearer\s+)[A-Za-z0-9._~+/=-]+")
HIDDEN = "(hidden)"
MAX_TEXT = 4000

Fields = MutableMapping[str, object]


def hide_secrets(_logger: object, _method: str, fields: Fields) -> Fields:
    """Replace values under secret-looking keys and bearer tokens inside texts.

    A fencing token is a small number, no secret, and is kept.
    """
    return {key: _shown(key, value) for key, value in fields.items()}


def _shown(key: str, value: object) -> object:
    if isinstance(value, str):
        if SECRET_KEYS.search(key):
            return HIDDEN
        return BEARER.sub(rf"\1{HIDDEN}", value[:MAX_TEXT])
    if isinstance(value, bytes):
        return HIDDEN
    if isinstance(value, dict):
        return {str(name): _shown(str(name), nested) for name, nested in value.items()}
    if isinstance(value, list | tuple):
        return [_shown(key, nested) for nested in value]
    return value


_LOUD = ("uvicorn", "uvicorn.error", "uvicorn.access")


def configure(*, as_json: bool, level: str = "info", stream: TextIO | None = None) -> None:
    """Send the log of this process to `stream` (stderr), one line an event."""
    out = stream if stream is not None else sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=out.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        hide_secrets,
    ]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))
    for name in _LOUD:
        # A library that set up handlers of its own would write beside this log, not into it.
        other = logging.getLogger(name)
        other.handlers.clear()
        other.propagate = True


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """The log of one part of the program."""
    bound: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(part=name)
    return bound
