"""What an event is: one fact of the log, with a name, a version and the subjects whose story it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. Subclasses set `name`, `version` and `about`: {subject kind: the field that holds its id}.

    `added`: {version: {field that came with it: what it is in an event of an earlier version}}.
    """

    name: ClassVar[str] = ""
    version: ClassVar[int] = 1
    about: ClassVar[Mapping[str, str]] = {}
    added: ClassVar[Mapping[int, Mapping[str, object]]] = {}

    def subjects(self) -> tuple[str, ...]:
        """The things this event is about, as "kind/id"."""
        named = ((kind, getattr(self, field)) for kind, field in self.about.items())
        return tuple(f"{kind}/{value}" for kind, value in named if value not in (None, ""))
