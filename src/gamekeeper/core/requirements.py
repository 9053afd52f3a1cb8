"""What a job needs of a machine, and what a machine has: the two sides of a match.

A quantity of a machine is `None` until it was declared or measured. Unknown is not zero: it fits no job that asks for
it, and the reason says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from gamekeeper.core.errors import UsageError

MAX_LABELS = 32
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Requirements:
    """What one job takes of a node while it runs, besides one of its slots.

    gpus: how many; whole numbers are whole devices, a fraction below 1 shares one device. gpu_memory_bytes: of each
    device. cpus: processor cores. memory_bytes, disk_bytes: main memory and free disk. labels: (name, value) pairs that
    the node must carry, sorted. architectures: any of these ("x86_64"); empty: any. lasting: not on an ephemeral node.
    """

    gpus: float = 0.0
    gpu_memory_bytes: int = 0
    cpus: float = 0.0
    memory_bytes: int = 0
    disk_bytes: int = 0
    labels: tuple[tuple[str, str], ...] = ()
    architectures: tuple[str, ...] = ()
    lasting: bool = False

    def __post_init__(self) -> None:
        """Raise `UsageError` for a requirement that means nothing."""
        for name in ("gpus", "cpus"):
            number = getattr(self, name)
            if not 0 <= number <= 4096:
                raise UsageError(f"requirement {name} is {number}: it must lie between 0 and 4096")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise UsageError(
                f"requirement gpus is {self.gpus}: only a part of one device can be shared",
                remedy="ask for a fraction below 1, or for whole devices",
            )
        for name in ("gpu_memory_bytes", "memory_bytes", "disk_bytes"):
            if not 0 <= getattr(self, name) < 1 << 62:
                raise UsageError(f"requirement {name} is {getattr(self, name)}: it must be a size in bytes")
        if self.gpu_memory_bytes and not self.gpus:
            raise UsageError(
                "requirement gpu_memory_bytes is set, but gpus is 0", remedy="set gpus to how many are needed"
            )
        if len(self.labels) > MAX_LABELS or len({name for name, _ in self.labels}) != len(self.labels):
            raise UsageError(f"labels must be distinct names, at most {MAX_LABELS}")

    def to_map(self) -> dict[str, object]:
        """As a JSON object that holds only what is asked for, so that equal requirements are equal texts."""
        asked: dict[str, object] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if value == each.default:
                continue
            if each.name == "labels":
                asked["labels"] = dict(sorted(value))
            else:
                asked[each.name] = sorted(value) if each.name == "architectures" else value
        return asked

    @classmethod
    def from_map(cls, asked: Mapping[str, object]) -> Requirements:
        """The inverse of `to_map`. Raises `UsageError` for an unknown name or a value of another type."""
        known = {each.name for each in fields(cls)}
        for name in asked:
            if name not in known:
                raise UsageError(f"unknown requirement {name!r}", remedy=f"use {', '.join(sorted(known))}")
        labels = asked.get("labels", {})
        architectures = asked.get("architectures", ())
        if not isinstance(labels, Mapping) or not isinstance(architectures, list | tuple):
            raise UsageError("requirement labels must be a table of names, architectures a list of names")
        lasting = asked.get("lasting", False)
        if not isinstance(lasting, bool):
            raise UsageError("requirement lasting must be true or false")
        return cls(
            gpus=_number(asked, "gpus"),
            gpu_memory_bytes=_size(asked, "gpu_memory_bytes"),
            cpus=_number(asked, "cpus"),
            memory_bytes=_size(asked, "memory_bytes"),
            disk_bytes=_size(asked, "disk_bytes"),
            labels=tuple(sorted((str(name), str(value)) for name, value in labels.items())),
            architectures=tuple(sorted(map(str, architectures))),
            lasting=lasting,
        )


@dataclass(frozen=True, slots=True)
class Gpu:
    """One device of a node. `memory_bytes` is `None` where nobody measured or declared it."""

    name: str
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a node has in all, busy or not; `None` where it is not known.

    `gpus` are its devices in the order of their indices. `labels` and `ephemeral` are declared, the rest is measured or
    declared.
    """

    slots: int
    cpus: float | None = None
    memory_bytes: int | None = None
    disk_free_bytes: int | None = None
    gpus: tuple[Gpu, ...] | None = None
    architecture: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class GpuShare:
    """A part of one device: its index on the node, and how much of it, in (0, 1]."""

    index: int
    share: float


Taken = tuple[Requirements, tuple[GpuShare, ...]]
"""What one job takes of its node: what it asked for, and the devices that were set aside for it."""


def overcommitted(capacity: Capacity, taken: Iterable[Taken]) -> str:
    """The quantity of which `taken` is more than a machine has, or "". What is not known is taken as nothing."""
    each = list(taken)
    asked = [one for one, _ in each]
    for name, has, wanted in (
        ("cpus", capacity.cpus, sum(one.cpus for one in asked)),
        ("memory_bytes", capacity.memory_bytes, sum(one.memory_bytes for one in asked)),
        ("disk_bytes", capacity.disk_free_bytes, sum(one.disk_bytes for one in asked)),
    ):
        if wanted > (has or 0) + _ROUNDING:
            return name
    used: dict[int, float] = {}
    for _, parts in each:
        for part in parts:
            used[part.index] = used.get(part.index, 0.0) + part.share
    devices = len(capacity.gpus or ())
    if any(index >= devices or share > 1 + _ROUNDING for index, share in used.items()):
        return "gpus"
    return "gpus" if any(one.gpus and not parts for one, parts in each) else ""


def _number(asked: Mapping[str, object], name: str) -> float:
    value = asked.get(name, 0.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"requirement {name} is {value!r}: it must be a number")
    return float(value)


def _size(asked: Mapping[str, object], name: str) -> int:
    value = asked.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UsageError(f"requirement {name} is {value!r}: it must be a whole number of bytes")
    return value
