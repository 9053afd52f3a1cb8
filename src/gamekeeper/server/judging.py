"""What an ended attempt is worth. A pure function: the agent reports, the coordinator judges.

Exit code 0 proves nothing. An attempt has succeeded when its receipt is complete and positive, every file it names was
handed in by this very attempt and accepted, and its counts are those of the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gamekeeper.core.artifacts import Artifact, ArtifactKind
from gamekeeper.core.jobs import END_STATES, AttemptState, EndReason, JobSpec
from gamekeeper.core.receipts import BUILT_IN_KINDS, JobKind, Proof, examine

MAX_DETAIL = 2000
_OVERRIDDEN_BY_REFUSAL = frozenset(
    {
        EndReason.FINISHED,
        EndReason.OWN_ERROR,
        EndReason.NO_RECEIPT,
        EndReason.NO_EVIDENCE,
        EndReason.MISSING_OUTPUT,
        EndReason.DATA_REFUSED,
        EndReason.STOP_REQUESTED,
    }
)
_JUDGED_BY_RECEIPT = frozenset({EndReason.FINISHED, EndReason.STOP_REQUESTED})


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file of the attempt that was refused at the door."""

    name: str
    problem: str
    detail: str


@dataclass(frozen=True, slots=True)
class Case:
    """All that is looked at: the agent's finding, the receipt, and what the attempt handed in.

    `known_model`: the line has a model of the receipt's hash already, from another job. `cancelled`: the job is
    to end cancelled, so nothing of it is booked. `kinds`: the kinds of jobs that are known.
    """

    spec: JobSpec
    reason: EndReason
    detail: str
    exit_code: int | None
    receipt: object
    accepted: Sequence[Artifact] = ()
    refused: Sequence[RefusedFile] = ()
    known_model: bool = False
    cancelled: bool = False
    kinds: Mapping[str, JobKind] = field(default_factory=lambda: BUILT_IN_KINDS)


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the attempt ended, with a sentence."""

    reason: EndReason
    detail: str

    @property
    def state(self) -> AttemptState:
        """The final state that goes with the reason."""
        return END_STATES[self.reason]


def judge(case: Case) -> Judgement:
    """Decide how an attempt ended."""
    if case.refused and case.reason in _OVERRIDDEN_BY_REFUSAL:
        first = case.refused[0]
        return _ended(EndReason.DATA_REFUSED, f"{first.name}: {first.problem}: {first.detail}")
    if case.reason not in _JUDGED_BY_RECEIPT:
        return _ended(case.reason, case.detail)
    finding = _of_receipt(case)
    if case.reason is EndReason.STOP_REQUESTED and (finding is not None or case.cancelled):
        return _ended(EndReason.STOP_REQUESTED, case.detail or "stopped as asked")
    return finding or _ended(EndReason.FINISHED, case.detail)


def _ended(reason: EndReason, detail: str) -> Judgement:
    return Judgement(reason, detail[:MAX_DETAIL])


def _of_receipt(case: Case) -> Judgement | None:
    """What speaks against success; `None` when nothing does."""
    if case.exit_code not in (0, None):
        return _ended(EndReason.OWN_ERROR, f"exit code {case.exit_code}. {case.detail}".strip())
    kind = case.kinds.get(case.spec.kind)
    if kind is None:
        return _ended(EndReason.OWN_ERROR, f"jobs of kind {case.spec.kind!r} are not known here")
    if case.receipt is None:
        return _ended(EndReason.NO_RECEIPT, "the job ended with exit code 0 and handed in no receipt")
    finding = examine(kind, case.receipt)
    if finding.proof is Proof.HOLLOW:
        return _ended(EndReason.NO_EVIDENCE, "; ".join(finding.problems))
    if finding.proof is Proof.MALFORMED:
        return _ended(EndReason.OWN_ERROR, "the receipt is malformed: " + "; ".join(finding.problems))
    assert isinstance(case.receipt, Mapping)  # noqa: S101 - a good receipt is an object
    check = _CHECKS.get(case.spec.kind)
    return check(case, case.receipt) if check is not None else None


def _found(case: Case, receipt: Mapping[str, object]) -> Judgement | None:
    return _missing(case, ArtifactKind.MODEL, (str(receipt["model"]),)) or _known(case)


def _selfplay(case: Case, receipt: Mapping[str, object]) -> Judgement | None:
    hashes = _strings(receipt["shards"])
    missing = _missing(case, ArtifactKind.SHARD, hashes)
    if missing is not None:
        return missing
    shards = [item for item in case.accepted if item.kind is ArtifactKind.SHARD and item.hash in hashes]
    for name in ("games", "samples"):
        verified = sum(getattr(shard, name) for shard in shards)
        if receipt[name] != verified:
            return _ended(
                EndReason.OWN_ERROR, f"the receipt claims {receipt[name]} {name}, its shards hold {verified}"
            )
    return None


def _train(case: Case, receipt: Mapping[str, object]) -> Judgement | None:
    given = case.spec.inputs.get("model", ())
    if tuple(given) != (receipt["parent"],):
        return _ended(
            EndReason.OWN_ERROR, f"the receipt names parent {receipt['parent']}, the job was given {given}"
        )
    return _missing(case, ArtifactKind.MODEL, (str(receipt["model"]),)) or _known(case)


def _evaluate(case: Case, receipt: Mapping[str, object]) -> Judgement | None:
    pairs = receipt["pairs"]
    assert isinstance(pairs, Sequence)  # noqa: S101 - checked with the receipt
    if receipt["games"] != 2 * len(pairs):
        return _ended(
            EndReason.OWN_ERROR, f"the receipt claims {receipt['games']} games in {len(pairs)} pairs"
        )
    first, wanted = case.spec.wanted.get("first_pair", 0), case.spec.wanted.get("pairs", 0)
    if not isinstance(first, int) or not isinstance(wanted, int):
        return _ended(EndReason.OWN_ERROR, "the job does not say which pairs it wants")
    strange = [pair[0] for pair in pairs if not first <= pair[0] < first + wanted]
    if strange:
        return _ended(
            EndReason.OWN_ERROR,
            f"pair {strange[0]} was not asked for (wanted {first} to {first + wanted - 1})",
        )
    return None


def _missing(case: Case, kind: ArtifactKind, hashes: Sequence[str]) -> Judgement | None:
    have = {item.hash for item in case.accepted if item.kind is kind}
    lacking = [digest for digest in hashes if digest not in have]
    if not lacking:
        return None
    return _ended(
        EndReason.MISSING_OUTPUT,
        f"the receipt names {kind} {lacking[0][:12]}, which this attempt has not handed in ({len(lacking)} missing)",
    )


def _known(case: Case) -> Judgement | None:
    if not case.known_model:
        return None
    return _ended(
        EndReason.NO_EVIDENCE, "the model is not a new one: the line has these very weights already"
    )


def _strings(value: object) -> tuple[str, ...]:
    assert isinstance(value, Sequence)  # noqa: S101 - checked with the receipt
    return tuple(str(entry) for entry in value)


_CHECKS = {"found": _found, "selfplay": _selfplay, "train": _train, "evaluate": _evaluate}
