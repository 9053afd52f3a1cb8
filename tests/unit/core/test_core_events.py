"""Events: a closed set, each with golden JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core import control_events
from gamekeeper.core import events as events_module
from gamekeeper.core.errors import UsageError
from gamekeeper.core.event import Event
from gamekeeper.core.events import (
    EVENT_TYPES,
    AgentConnected,
    ChampionMoved,
    ModelRegistered,
    as_json,
    decode,
    encode,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "events"
EVENTS = sorted(EVENT_TYPES.items())


def golden(name: str, version: int) -> dict[str, Any]:
    document = json.loads((GOLDEN / f"{name}.v{version}.json").read_text("utf-8"))
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize(("name", "cls"), EVENTS)
def test_each_event_reads_and_writes_its_golden_json(name: str, cls: type[Event]) -> None:
    """A log written by an earlier start must be readable by a later one, field by field."""
    stored = golden(name, cls.version)
    event = decode(name, cls.version, stored["event"])
    assert type(event) is cls
    assert json.loads(json.dumps(encode(event))) == stored["event"]
    assert list(event.subjects()) == stored["subjects"]


def test_every_golden_file_is_an_event_of_today() -> None:
    """An event taken away would leave stored rows that nobody can read."""
    files = {path.name for path in GOLDEN.glob("*.json")}
    assert files == {
        f"{name}.v{version}.json" for name, cls in EVENTS for version in range(1, cls.version + 1)
    }


EARLIER = [(name, version) for name, cls in EVENTS for version in range(1, cls.version)]


@pytest.mark.parametrize(("name", "version"), EARLIER)
def test_events_of_earlier_versions_are_still_read(name: str, version: int) -> None:
    """Breaks if a store that was written before a field was added cannot be read, or reads as something else."""
    stored = golden(name, version)
    event = decode(name, version, stored["event"])
    assert list(event.subjects()) == stored["subjects"]
    added = {field for later in range(version + 1, event.version + 1) for field in event.added[later]}
    assert {key: value for key, value in encode(event).items() if key not in added} == stored["event"]


@pytest.mark.parametrize(("name", "cls"), EVENTS)
def test_each_event_declares_itself(name: str, cls: type[Event]) -> None:
    """A field that is missing from `about`, or misspelt there, drops the event out of a subject's story."""
    assert cls.name == name
    assert cls.version >= 1
    assert cls.about
    hints = get_type_hints(cls)
    assert all(field in hints for field in cls.about.values())
    assert cls.__doc__


@st.composite
def events(draw: st.DrawFn) -> Event:
    _, cls = draw(st.sampled_from(EVENTS))
    hints = {
        field: hint
        for field, hint in get_type_hints(cls).items()
        if field not in ("name", "version", "about", "added")
    }
    values = {
        int: st.integers(), str: st.text(max_size=9), int | None: st.none() | st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False),
    }  # fmt: skip
    return cls(**{field: draw(values[hint]) for field, hint in hints.items()})


@given(events())
@settings(max_examples=120, deadline=None)
def test_events_survive_the_log(event: Event) -> None:
    """What is written is what is read, and the fast way of writing writes the same."""
    document = json.loads(json.dumps(encode(event)))
    assert decode(event.name, event.version, document) == event
    assert as_json(event) == json.dumps(encode(event), separators=(",", ":"))


@given(events(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_drifting_payload_is_refused(event: Event, data: st.DataObject) -> None:
    """A field lost, added or of another type must fail where it is made, naming the event."""
    document = encode(event)
    field = data.draw(st.sampled_from(sorted(document)))
    lost = {key: value for key, value in document.items() if key != field}
    for wrong in (lost, document | {"extra": 1}, document | {field: [1]}, document | {field: True}):
        with pytest.raises(UsageError, match=event.name):
            decode(event.name, event.version, wrong)


@pytest.mark.parametrize(("name", "version"), [("node-lost", 2), ("node-found", 1), ("", 1)])
def test_unknown_names_and_versions_are_refused(name: str, version: int) -> None:
    """Guessing at an unknown event would invent facts."""
    with pytest.raises(UsageError, match="unknown event"):
        decode(name, version, {"node_id": "n"})


def test_none_is_only_for_optional_fields() -> None:
    """A founding model has no parent; it does have a line."""
    founding = {"model_id": 1, "line": "c4", "hash": "h", "parent_id": None, "job_id": 2}
    assert decode("model-registered", 1, founding) == ModelRegistered(1, "c4", "h", None, 2)
    with pytest.raises(UsageError, match="field line holds None"):
        decode("model-registered", 1, founding | {"line": None})


def test_subjects_leave_out_what_is_not_there() -> None:
    """A subject without an id would gather the events of all that have none."""
    assert ChampionMoved("", 4, None, 0, 9).subjects() == ("model/4",)
    assert AgentConnected("n-1", "inc", 3, 0).subjects() == ("node/n-1",)
    assert ChampionMoved("c4", 0, None, 0, 9).subjects() == ("model/0", "line/c4")


def test_the_base_event_is_no_event() -> None:
    """The abstract class must not be decodable."""
    assert Event not in EVENT_TYPES.values()
    declared = {
        cls
        for module in (events_module, control_events)
        for cls in vars(module).values()
        if isinstance(cls, type) and issubclass(cls, Event)
    }
    assert set(EVENT_TYPES.values()) == declared - {Event}
