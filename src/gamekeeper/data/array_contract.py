"""The data contract of a line: which arrays a shard holds and what their values must satisfy.

A contract is a table of plain values, written as TOML:

    games_from = "game"          # array of shape [N] whose distinct values are the games; may be left out
    samples_dimension = "N"      # the dimension that counts samples
    extra_arrays = false         # whether numeric arrays that the contract does not name may be there
    min_samples = 1
    [arrays.policy]
    dtype = "<f4"                # numpy's notation with the byte order, or a list of alternatives
    shape = ["N", 7]             # sizes, or names of dimensions that are the same wherever named and at least 1
    required = true
    order = "C"                  # or "any"
    finite = true
    min = 0.0
    max = 1.0
    row_sum = 1.0                # over everything behind the first axis
    row_sum_tolerance = 1e-3
    one_hot = false              # exactly one 1 in a row, all else 0
    zero_where_not = "legal"     # no weight where that array, of the same shape, is zero

Only `dtype` and `shape` must be written; the others default to the values shown or to no rule.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gamekeeper.data.array_rules import ArrayRule, ContractError, Table, read_rule, suggest
from gamekeeper.data.npy_header import NpyHeader
from gamekeeper.data.verdicts import Defect, Reason

_KEYS = ("arrays", "games_from", "samples_dimension", "extra_arrays", "min_samples")


@dataclass(frozen=True, slots=True)
class Contract:
    """The rules of one line's shards; build it with `from_mapping`."""

    arrays: tuple[ArrayRule, ...]
    samples_dimension: str = "N"
    games_from: str | None = None
    extra_arrays: bool = False
    min_samples: int = 1

    @classmethod
    def from_mapping(cls, table: Mapping[str, object]) -> Contract:
        """Read a contract; raises `ContractError` naming the key, the cause and the remedy."""
        settings = Table(table, "", _KEYS)
        arrays = settings.value("arrays")
        if not isinstance(arrays, dict) or not arrays:
            raise ContractError(
                "arrays", "is missing or empty", remedy="add a table [arrays.NAME] for every array"
            )
        contract = cls(
            arrays=tuple(read_rule(name, rule) for name, rule in arrays.items()),
            samples_dimension=settings.text("samples_dimension") or "N",
            games_from=settings.text("games_from"),
            extra_arrays=settings.flag("extra_arrays", False),
            min_samples=settings.count("min_samples", 1),
        )
        _check_references(contract)
        return contract

    def rule(self, name: str) -> ArrayRule | None:
        """The rule for the array of that name, if the contract has one."""
        return next((rule for rule in self.arrays if rule.name == name), None)

    def to_mapping(self) -> dict[str, object]:
        """The table that `from_mapping` reads back as an equal contract."""
        table: dict[str, object] = {
            "arrays": {rule.name: rule.to_mapping() for rule in self.arrays},
            "samples_dimension": self.samples_dimension,
            "extra_arrays": self.extra_arrays,
            "min_samples": self.min_samples,
        }
        return table if self.games_from is None else table | {"games_from": self.games_from}


@dataclass(frozen=True, slots=True)
class ShapeFindings:
    """What the headers alone tell: the samples and every breach of the contract seen so far."""

    samples: int
    reasons: tuple[Reason, ...]


def judge_headers(contract: Contract, headers: Mapping[str, NpyHeader]) -> ShapeFindings:
    """Compare the headers of a file's arrays, by array name, with the contract. Reads no data."""
    reasons: list[Reason] = []
    dimensions: dict[str, tuple[int, str]] = {}
    for rule in contract.arrays:
        header = headers.get(rule.name)
        if header is not None:
            reasons.extend(_judge_header(rule, header, dimensions))
            mask = rule.zero_where_not
            if mask is not None and mask not in headers:
                text = f"is not there, and {rule.name!r} is to be zero where it is"
                reasons.append(Reason(Defect.MISSING_ARRAY, text, member=f"{mask}.npy"))
        elif rule.required:
            reasons.append(Reason(Defect.MISSING_ARRAY, "required and not there", member=f"{rule.name}.npy"))
    if not contract.extra_arrays:
        named = {rule.name for rule in contract.arrays}
        reasons.extend(
            Reason(Defect.EXTRA_ARRAY, "not in the contract", member=f"{name}.npy")
            for name in headers
            if name not in named
        )
    reasons.extend(
        Reason(Defect.SHAPE, f"dimension {name} is 0", member=f"{array}.npy")
        for name, (size, array) in dimensions.items()
        if size == 0 and name != contract.samples_dimension
    )
    samples, array = dimensions.get(contract.samples_dimension, (0, ""))
    if array and samples < contract.min_samples:
        text = f"{samples} samples; at least {contract.min_samples} are wanted"
        reasons.append(Reason(Defect.TOO_FEW_SAMPLES, text, member=f"{array}.npy"))
    return ShapeFindings(samples, tuple(reasons))


def _judge_header(rule: ArrayRule, header: NpyHeader, dimensions: dict[str, tuple[int, str]]) -> list[Reason]:
    """Breaches of one array's header. Adds to `dimensions` (size, array that set it) what it learns."""
    member = f"{rule.name}.npy"
    reasons = []
    if header.descr not in rule.dtypes:
        text = f"dtype {header.descr}; wanted is {' or '.join(rule.dtypes)}"
        reasons.append(Reason(Defect.DTYPE, text, member))
    # With at most one axis both orders are the same bytes.
    if header.fortran and not rule.any_order and len(header.shape) > 1:
        reasons.append(Reason(Defect.ORDER, "Fortran order; wanted is C order", member))
    if len(header.shape) != len(rule.shape):
        text = f"{len(header.shape)} axes {header.shape}; wanted are {len(rule.shape)} {rule.shape}"
        return [*reasons, Reason(Defect.SHAPE, text, member)]
    for axis, (size, wanted) in enumerate(zip(header.shape, rule.shape, strict=True)):
        if isinstance(wanted, str):
            expected, owner = dimensions.setdefault(wanted, (size, rule.name))
            said = f"{wanted} = {expected}, as in {owner!r}"
        else:
            expected, said = wanted, str(wanted)
        if size != expected:
            reasons.append(Reason(Defect.SHAPE, f"axis {axis} is {size}; wanted is {said}", member))
    return reasons


def _check_references(contract: Contract) -> None:
    """Names that point to other parts of the contract must point to something that fits."""
    samples = contract.samples_dimension
    if not any(rule.required and rule.shape[:1] == (samples,) for rule in contract.arrays):
        cause = f"no required array has {samples!r} as its first axis"
        raise ContractError("samples_dimension", cause, remedy="name the dimension that counts samples")
    for rule in contract.arrays:
        if rule.zero_where_not is not None:
            _check_mask(contract, rule, rule.zero_where_not)
    if contract.games_from is not None:
        counted = contract.rule(contract.games_from)
        if counted is None:
            remedy = suggest(contract.games_from, [rule.name for rule in contract.arrays])
            raise ContractError("games_from", f"there is no array {contract.games_from!r}", remedy=remedy)
        whole = all(dtype[1] in "iu" for dtype in counted.dtypes)
        if not (whole and counted.required and counted.shape == (samples,)):
            cause = f"{counted.name!r} is not a required array of whole numbers of shape [{samples!r}]"
            remedy = "name the array that holds for every sample the number of its game"
            raise ContractError("games_from", cause, remedy=remedy)


def _check_mask(contract: Contract, rule: ArrayRule, name: str) -> None:
    key = f"arrays.{rule.name}.zero_where_not"
    mask = contract.rule(name)
    if mask is None or mask is rule:
        remedy = suggest(name, [other.name for other in contract.arrays if other is not rule])
        raise ContractError(key, f"there is no other array {name!r}", remedy=remedy)
    if mask.shape != rule.shape or mask.any_order:
        raise ContractError(key, f"{name!r} has another shape or order", remedy="give both the same")
    if rule.required and not mask.required:
        raise ContractError(key, f"{name!r} is optional", remedy=f"make {name!r} required")
