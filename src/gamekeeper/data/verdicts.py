"""What a look at a data file can conclude: fine, bad for a stated reason, or could-not-tell.

`Defect` is the closed list of reasons. Every `bad` or `unknown` verdict names one, so that programs can branch
on it and a person reads the sentence beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The three answers. `unknown` says nothing about the file: ask again when the cause is gone."""

    OK = "ok"
    BAD = "bad"
    UNKNOWN = "unknown"


class Defect(StrEnum):
    """Why a file is not accepted. The last two belong to `unknown`, all others to `bad`."""

    NOT_A_FILE = "not-a-file"  # a folder, pipe or device
    NOT_ZIP = "not-zip"
    TRUNCATED = "truncated"
    JUNK = "junk"  # bytes before, between or behind what the archive describes
    ENCRYPTED = "encrypted"
    MULTI_DISK = "multi-disk"
    UNSUPPORTED = "unsupported"  # a zip feature no .npz writer uses
    OVERLAP = "overlap"
    DUPLICATE_MEMBER = "duplicate-member"
    BAD_NAME = "bad-name"
    HEADER_MISMATCH = "header-mismatch"  # two records of the archive contradict each other
    LIMIT = "limit"  # more members, rows or games than the limits allow
    BOMB = "bomb"  # would unpack to more than the limits allow
    BAD_DEFLATE = "bad-deflate"
    BAD_CRC = "bad-crc"
    SIZE_MISMATCH = "size-mismatch"
    BAD_NPY_HEADER = "bad-npy-header"
    OBJECT_DTYPE = "object-dtype"  # would need unpickling
    MISSING_ARRAY = "missing-array"
    EXTRA_ARRAY = "extra-array"
    DTYPE = "dtype"
    ORDER = "order"  # Fortran order where the contract wants C order
    SHAPE = "shape"
    NOT_FINITE = "not-finite"
    RANGE = "range"
    ROW_SUM = "row-sum"
    ONE_HOT = "one-hot"
    ILLEGAL_WEIGHT = "illegal-weight"
    TOO_FEW_SAMPLES = "too-few-samples"
    SAMPLES_MISMATCH = "samples-mismatch"  # the manifest declares another number
    GAMES_MISMATCH = "games-mismatch"
    UNREADABLE = "unreadable"
    CHANGED = "changed"  # the file was written to while it was read


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding. `offset` counts bytes of the file, `row` counts along the array's first axis; None: neither."""

    defect: Defect
    text: str
    member: str = ""
    offset: int | None = None
    row: int | None = None

    def as_json(self) -> dict[str, object]:
        """The finding as a flat JSON object; keys that do not apply are left out."""
        document: dict[str, object] = {"class": self.defect.value, "text": self.text}
        if self.member:
            document["member"] = self.member
        if self.offset is not None:
            document["offset"] = self.offset
        if self.row is not None:
            document["row"] = self.row
        return document


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one file.

    `samples` and `games` are set only when the state is ok; `games` is None when the contract names no array to
    count them from. `bytes` is the size of the file, None when it could not be learnt.
    """

    state: State
    reasons: tuple[Reason, ...] = ()
    samples: int | None = None
    games: int | None = None
    bytes: int | None = None

    @property
    def defect(self) -> Defect | None:
        """The class of the first and gravest finding; None when the file is ok."""
        return self.reasons[0].defect if self.reasons else None

    def as_json(self) -> dict[str, object]:
        """The verdict as a JSON object: verdict, class, reasons, samples, games, bytes."""
        return {
            "verdict": self.state.value,
            "class": self.defect.value if self.defect else None,
            "reasons": [reason.as_json() for reason in self.reasons],
            "samples": self.samples,
            "games": self.games,
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one untrusted file may cost. Sizes are bytes.

    An archive is called a bomb when it would unpack to more than `max_unpacked`, or to more than `max_ratio` times
    the size of the file once that is more than `ratio_free`. (Deflate can reach 1032 to 1; honest arrays
    of zeros do, hence the free allowance.)
    """

    max_members: int = 512
    max_directory: int = 1 << 20
    max_unpacked: int = 8 << 30
    max_ratio: float = 250.0
    ratio_free: int = 64 << 20
    max_row: int = 16 << 20  # a row has to fit in memory when a rule looks at whole rows
    max_games: int = 1 << 22  # distinct games counted in one file
    max_reasons: int = 32


class Refusal(Exception):
    """Raised inside the validator when the file is bad beyond reading on."""

    def __init__(self, defect: Defect, text: str, *, member: str = "", offset: int | None = None) -> None:
        super().__init__(text)
        self.reason = Reason(defect, text, member, offset)


class Undecided(Exception):
    """Raised inside the validator when the file could not be read to the end as one unchanging thing."""

    def __init__(self, defect: Defect, text: str) -> None:
        super().__init__(text)
        self.reason = Reason(defect, text)
