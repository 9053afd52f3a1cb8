"""Whether an untrusted .npz file is what a line's data contract wants.

Theory of operation. Five steps, each of which costs little before the next is allowed:
1. The archive's directory, read strictly and without unpacking (`zip_layout`); bombs end here.
2. The header of every array, parsed without eval (`npy_header`); a member's size must be exactly what its shape and
   dtype need.
3. Headers against the contract (`array_contract`).
4. All data, once, in pieces that stay in cache: checksums, and the contract's value rules (`array_scan`).
5. The manifest's counts.
Nothing is ever unpickled, and memory stays bounded by `Limits` and the piece size.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gamekeeper.data.array_checks import GameCounter
from gamekeeper.data.array_contract import Contract, judge_headers
from gamekeeper.data.array_scan import FoundArray, scan_array
from gamekeeper.data.file_source import FileSource
from gamekeeper.data.member_stream import MemberStream
from gamekeeper.data.npy_header import read_header
from gamekeeper.data.verdicts import Defect, Limits, Reason, Refusal, State, Undecided, Verdict
from gamekeeper.data.zip_layout import Member, read_layout


@dataclass(frozen=True, slots=True)
class Declared:
    """What the manifest of a shard claims; None claims nothing.

    `games` can only be compared when the contract says where to count them from.
    """

    samples: int | None = None
    games: int | None = None


_NOTHING_DECLARED = Declared()
_DEFAULT_LIMITS = Limits()


def validate(
    path: Path,
    contract: Contract,
    *,
    declared: Declared = _NOTHING_DECLARED,
    limits: Limits = _DEFAULT_LIMITS,
) -> Verdict:
    """Judge the file at `path` by `contract`, and by what its manifest declared.

    Never raises for anything the file or the file system does: what cannot be told is the verdict `unknown`.
    A damaged archive has one reason; a sound one that breaks the contract has one for every broken rule,
    up to `limits.max_reasons`.
    """
    size: int | None = None
    try:
        with FileSource(path) as source:
            size = source.size
            try:
                verdict = _judge(source, contract, declared, limits)
            except Refusal as refusal:
                verdict = Verdict(State.BAD, (refusal.reason,), bytes=size)
            source.ensure_unchanged()
            return verdict
    except Refusal as refusal:
        return Verdict(State.BAD, (refusal.reason,))
    except Undecided as undecided:
        return Verdict(State.UNKNOWN, (undecided.reason,), bytes=size)


def _judge(source: FileSource, contract: Contract, declared: Declared, limits: Limits) -> Verdict:
    arrays = {member.array: _read_array(source, member) for member in read_layout(source, limits)}
    shapes = judge_headers(contract, {name: array.header for name, array in arrays.items()})
    reasons, games = list(shapes.reasons), None
    if not reasons:
        reasons, games = _scan(source, contract, arrays, limits)
    if not reasons:
        reasons = _compare(declared, shapes.samples, games)
    if reasons:
        return Verdict(State.BAD, tuple(reasons[: limits.max_reasons]), bytes=source.size)
    return Verdict(State.OK, (), shapes.samples, games, source.size)


def _read_array(source: FileSource, member: Member) -> FoundArray:
    stream = MemberStream(source, member)
    try:
        return FoundArray(member, read_header(stream.read, member.size))
    except Refusal as refusal:
        if refusal.reason.member:
            raise
        raise Refusal(
            refusal.reason.defect, refusal.reason.text, member=f"{member.array}.npy", offset=member.data
        ) from refusal


def _scan(
    source: FileSource, contract: Contract, arrays: dict[str, FoundArray], limits: Limits
) -> tuple[list[Reason], int | None]:
    """(breaches of value rules, number of games if the contract says where to count them)."""
    reasons: list[Reason] = []
    counter = (
        None if contract.games_from is None else GameCounter(limits.max_games, f"{contract.games_from}.npy")
    )
    for name, array in arrays.items():
        rule = contract.rule(name)
        if rule is None:
            MemberStream(source, array.member).finish()
            continue
        mask = arrays[rule.zero_where_not] if rule.zero_where_not is not None else None
        games = counter if name == contract.games_from else None
        reasons.extend(scan_array(source, array, rule, mask=mask, games=games, limits=limits))
    return reasons, None if counter is None or reasons else counter.count()


def _compare(declared: Declared, samples: int, games: int | None) -> list[Reason]:
    reasons = []
    if declared.samples is not None and declared.samples != samples:
        text = f"the manifest declares {declared.samples} samples, the file holds {samples}"
        reasons.append(Reason(Defect.SAMPLES_MISMATCH, text))
    if declared.games is not None and games is not None and declared.games != games:
        text = f"the manifest declares {declared.games} games, the file holds {games}"
        reasons.append(Reason(Defect.GAMES_MISMATCH, text))
    return reasons
