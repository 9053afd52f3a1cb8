"""Walks the data of one array in pieces, applying its rule and proving its checksum."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from gamekeeper.data.array_checks import Finding, GameCounter, PieceChecker, Values
from gamekeeper.data.array_rules import ArrayRule
from gamekeeper.data.file_source import FileSource
from gamekeeper.data.member_stream import PIECE, MemberStream
from gamekeeper.data.npy_header import NpyHeader
from gamekeeper.data.verdicts import Defect, Limits, Reason, Refusal
from gamekeeper.data.zip_layout import Member


@dataclass(frozen=True, slots=True)
class FoundArray:
    """An array of a file: where its member lies and what its header states."""

    member: Member
    header: NpyHeader

    def open(self, source: FileSource) -> MemberStream:
        """A stream that stands at the first element."""
        stream = MemberStream(source, self.member)
        stream.read(self.header.length)
        return stream


def scan_array(
    source: FileSource,
    array: FoundArray,
    rule: ArrayRule,
    *,
    mask: FoundArray | None,
    games: GameCounter | None,
    limits: Limits,
) -> list[Reason]:
    """Breaches of the rule in the first piece that has any.

    `mask` is the array that `zero_where_not` names: it is unpacked a second time, in step with this one, so that memory
    stays bounded. `games` takes in all values. Raises `Refusal` when the data itself is damaged, which outranks
    whatever the damage made the values look like: after a breach the rest is still read for its checksum.
    """
    name, header = f"{rule.name}.npy", array.header
    rows, row_length = (header.shape[0], prod(header.shape[1:])) if header.shape else (1, 1)
    if rule.looks_at_rows and row_length * header.itemsize > limits.max_row:
        text = f"a row of {row_length * header.itemsize} bytes; allowed are {limits.max_row}"
        raise Refusal(Defect.LIMIT, text, member=name)
    # A unit is what a piece holds whole: a row, or one element of a row too long to hold.
    unit = row_length if rule.looks_at_rows or 0 < row_length * header.itemsize <= PIECE else 1
    checker = PieceChecker(rule, header.descr)
    stream = array.open(source)
    mask_stream = mask.open(source) if mask is not None else None
    found: list[Finding] = []
    done = 0
    if header.count == 0:
        # All rows, if there are any, are alike: empty.
        found = checker.check(np.empty((min(rows, 1), row_length), header.descr), None)
    while stream.left and not found:
        units = min(max(1, PIECE // (unit * header.itemsize)), header.count // unit - done)
        piece = _piece(stream, header, units, unit)
        beside = (
            _piece(mask_stream, mask.header, units, unit)
            if mask_stream is not None and mask is not None
            else None
        )
        found = checker.check(piece, beside)
        if games is not None:
            games.add(piece)
        if not found:
            done += units
    stream.finish()
    plain = not header.fortran or len(header.shape) < 2
    return [
        Reason(
            finding.defect,
            finding.text,
            name,
            row=(done + finding.row) * unit // max(1, row_length) if plain else None,
        )
        for finding in found
    ]


def _piece(stream: MemberStream, header: NpyHeader, units: int, unit: int) -> Values:
    data = stream.read(units * unit * header.itemsize)
    return np.frombuffer(data, dtype=header.descr).reshape(units, unit)
