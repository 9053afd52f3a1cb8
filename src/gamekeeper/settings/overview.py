"""The settings in force as rows for people and programs: value, origin, and what derives from them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gamekeeper.core.errors import UsageError
from gamekeeper.settings.keys import DEFAULT, Layer, Origin, Path, spell
from gamekeeper.settings.loading import Settings
from gamekeeper.settings.masking import masked
from gamekeeper.settings.places import parse_key
from gamekeeper.settings.tree import Key, declared, instances, value_at


@dataclass(frozen=True, slots=True)
class Row:
    """One value in force. `value` is `None` for a key that is left out; `secret` when some of it is hidden.

    `derived_from` names the key it follows from, "" for a key that can be set.
    """

    path: Path
    value: object
    origin: Origin
    secret: bool = False
    derived_from: str = ""

    @property
    def key(self) -> str:
        """The key as TOML spells it."""
        return spell(self.path)


def rows(settings: Settings) -> list[Row]:
    """Every value in force, in the order of the schema, then what derives from them."""
    values = settings.document.model_dump(mode="python")
    values["data_dir"] = str(settings.data_dir)
    found: list[Row] = []
    for key in declared():
        for path in instances(key.path, values):
            found += _rows_of(settings, key, path, value_at(values, path))
    return [*found, *_derived(settings)]


def chosen(found: Sequence[Row], keys: Sequence[str]) -> list[Row]:
    """The rows of these keys and of the tables of these names. Raises `UsageError` for one that is none."""
    if not keys:
        return list(found)
    wanted: list[Row] = []
    for text in keys:
        try:
            path = parse_key(text)
        except ValueError:
            path = (text,)
        some = [row for row in found if row.path[: len(path)] == path]
        if not some:
            near = difflib.get_close_matches(text, [row.key for row in found], n=1, cutoff=0.5)
            raise UsageError(
                f"{text!r:.80} is no settings key",
                remedy=f"did you mean {near[0]}?" if near else "`gamekeeper config show` lists all",
            )
        wanted += [row for row in some if row not in wanted]
    return wanted


def _rows_of(settings: Settings, key: Key, path: Path, value: object) -> Iterator[Row]:
    """One row, or one for each entry of a table whose keys are the user's own."""
    if key.is_table and isinstance(value, dict) and value:
        for name, nested in value.items():
            yield _row(settings, (*path, str(name)), nested)
    else:
        yield _row(settings, path, value)


def _row(settings: Settings, path: Path, value: object) -> Row:
    shown = masked(path, value)
    return Row(path, shown, _origin(settings, path, value), secret=shown != value)


def _origin(settings: Settings, path: Path, value: object) -> Origin:
    """Where a value was set; of a table of several layers, the strongest."""
    if not isinstance(value, dict) or not value:
        return settings.origin_of(path)
    order = list(Layer)
    inner = [_origin(settings, (*path, str(name)), nested) for name, nested in value.items()]
    return max(inner, key=lambda one: order.index(one.layer), default=DEFAULT)


def _derived(settings: Settings) -> Iterator[Row]:
    key = "coordinator.lease_s"
    origin = settings.origin_of(("coordinator", "lease_s"))
    timings = settings.timings
    for name, value in (
        ("beat_s", timings.beat_s),
        ("self_stop_s", timings.self_stop_s),
        ("margin_s", timings.margin_s),
        ("reap_every_s", timings.reap_every_s),
    ):
        yield Row(("timings", name), value, origin, derived_from=key)
