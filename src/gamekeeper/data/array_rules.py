"""The rule for one array of a data contract, and its strict reading from a table of plain values."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gamekeeper.core.errors import SettingsError
from gamekeeper.data.npy_header import canonical_descr

_ARRAY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,123}", re.ASCII)
_DIMENSION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}", re.ASCII)
_KEYS = (
    "dtype", "shape", "required", "order", "finite", "min", "max",
    "row_sum", "row_sum_tolerance", "one_hot", "zero_where_not",
)  # fmt: skip
_ALIASES = {
    "float16": "<f2", "float32": "<f4", "float64": "<f8", "bool": "|b1",
    "int8": "|i1", "int16": "<i2", "int32": "<i4", "int64": "<i8",
    "uint8": "|u1", "uint16": "<u2", "uint32": "<u4", "uint64": "<u8",
}  # fmt: skip
_ROW_SUM_TOLERANCE = 1e-3
_LARGEST = 1e300  # larger whole numbers would not even convert to floating point


class ContractError(SettingsError):
    """The contract itself cannot be used. `key` is the dotted path of the offending setting."""

    code = "contract"

    def __init__(self, key: str, cause: str, *, remedy: str) -> None:
        super().__init__(f"{key}: {cause}", remedy=remedy)
        self.key = key


@dataclass(frozen=True, slots=True)
class ArrayRule:
    """What one array must satisfy. `dtypes` are alternatives; a `str` in `shape` names a dimension.

    A row is everything that one index of the first axis holds. `finite` matters for floating point only. The mask
    named by `zero_where_not` has the same shape; where it is zero, this array must be zero.
    """

    name: str
    dtypes: tuple[str, ...]
    shape: tuple[int | str, ...]
    required: bool = True
    any_order: bool = False
    finite: bool = True
    minimum: float | None = None
    maximum: float | None = None
    row_sum: float | None = None
    row_sum_tolerance: float = _ROW_SUM_TOLERANCE
    one_hot: bool = False
    zero_where_not: str | None = None

    @property
    def looks_at_rows(self) -> bool:
        """Whether a rule needs whole rows, in C order."""
        return self.row_sum is not None or self.one_hot or self.zero_where_not is not None

    def to_mapping(self) -> dict[str, object]:
        """The table that `read_rule` reads back as an equal rule; defaults are left out."""
        settings: tuple[tuple[str, object, object], ...] = (
            ("required", self.required, True),
            ("order", "any" if self.any_order else "C", "C"),
            ("finite", self.finite, True),
            ("min", self.minimum, None),
            ("max", self.maximum, None),
            ("row_sum", self.row_sum, None),
            ("row_sum_tolerance", self.row_sum_tolerance, _ROW_SUM_TOLERANCE),
            ("one_hot", self.one_hot, False),
            ("zero_where_not", self.zero_where_not, None),
        )
        table: dict[str, object] = {"dtype": list(self.dtypes), "shape": list(self.shape)}
        return table | {key: value for key, value, default in settings if value != default}


class Table:
    """Typed reading of a table whose keys are known; every complaint names the key's dotted path."""

    def __init__(self, values: Mapping[str, object], path: str, keys: Collection[str]) -> None:
        self._values = values
        self._path = path
        for key in values:
            if key not in keys:
                raise ContractError(
                    self.key(key), "is not a setting of a data contract", remedy=suggest(key, keys)
                )

    def key(self, key: str) -> str:
        """The dotted path of a key of this table."""
        return f"{self._path}.{key}" if self._path else key

    def value(self, key: str) -> object:
        """The raw value, None when absent."""
        return self._values.get(key)

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise ContractError(self.key(key), f"{value!r} is no truth value", remedy="write true or false")
        return value

    def text(self, key: str) -> str | None:
        """A text, None when absent."""
        value = self._values.get(key)
        if value is not None and not isinstance(value, str):
            raise ContractError(self.key(key), f"{value!r} is no text", remedy="write it in quotes")
        return value

    def number(self, key: str) -> float | None:
        """A number, None when absent. Whole numbers stay whole, so that large ones compare exactly."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            raise ContractError(
                self.key(key), f"{value!r} is no number below 1e300", remedy="write a number, or remove it"
            )
        return value

    def count(self, key: str, default: int) -> int:
        """A whole number from 0 up."""
        value = self._values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ContractError(
                self.key(key),
                f"{value!r} is no whole number from 0 up",
                remedy=f"write a number such as {default}",
            )
        return value


def suggest(given: str, known: Collection[str]) -> str:
    """A remedy for a word that is not among the known ones."""
    close = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known)}"


def read_rule(name: str, table: object) -> ArrayRule:
    """Read the table [arrays.NAME]; raises `ContractError`."""
    path = f"arrays.{name}"
    if not _ARRAY_NAME.fullmatch(name) or name.endswith(".npy"):
        raise ContractError(path, "is no array name", remedy="use letters, digits and _ . + - (without .npy)")
    if not isinstance(table, dict):
        raise ContractError(path, "is no table", remedy=f"write [{path}] with dtype and shape")
    settings = Table(table, path, _KEYS)
    order = settings.text("order") or "C"
    if order not in ("C", "any"):
        raise ContractError(settings.key("order"), f"{order!r} is unknown", remedy='write "C" or "any"')
    tolerance = settings.number("row_sum_tolerance")
    rule = ArrayRule(
        name=name,
        dtypes=_read_dtypes(settings),
        shape=_read_shape(settings),
        required=settings.flag("required", True),
        any_order=order == "any",
        finite=settings.flag("finite", True),
        minimum=settings.number("min"),
        maximum=settings.number("max"),
        row_sum=settings.number("row_sum"),
        row_sum_tolerance=_ROW_SUM_TOLERANCE if tolerance is None else tolerance,
        one_hot=settings.flag("one_hot", False),
        zero_where_not=settings.text("zero_where_not"),
    )
    _check_rule(rule, settings)
    return rule


def _check_rule(rule: ArrayRule, settings: Table) -> None:
    if rule.minimum is not None and rule.maximum is not None and rule.minimum > rule.maximum:
        cause = f"{rule.minimum} is above max, {rule.maximum}"
        raise ContractError(settings.key("min"), cause, remedy="swap or correct them")
    if settings.value("row_sum_tolerance") is not None and rule.row_sum is None:
        raise ContractError(
            settings.key("row_sum_tolerance"), "there is no row_sum", remedy="add it, or remove this"
        )
    if rule.row_sum_tolerance < 0:
        raise ContractError(
            settings.key("row_sum_tolerance"), "is negative", remedy="write a number from 0 up"
        )
    if rule.looks_at_rows and len(rule.shape) < 2:
        raise ContractError(
            settings.key("shape"), "has no rows for the rules about rows", remedy="add a second axis"
        )
    if rule.looks_at_rows and rule.any_order:
        raise ContractError(
            settings.key("order"), "rules about rows need C order", remedy='write order = "C"'
        )


def _read_dtypes(settings: Table) -> tuple[str, ...]:
    key = settings.key("dtype")
    given = settings.value("dtype")
    dtypes = [given] if isinstance(given, str) else given
    if not isinstance(dtypes, list) or not dtypes:
        raise ContractError(key, "is missing or no text", remedy='write for example dtype = "<f4"')
    found: list[str] = []
    for dtype in dtypes:
        canonical = canonical_descr(dtype) if isinstance(dtype, str) else None
        if canonical is None or canonical[1] == "c" or int(canonical[2:]) > 8:
            alias = _ALIASES.get(dtype) if isinstance(dtype, str) else None
            remedy = f'write "{alias}"' if alias else 'write for example "<f4", "|u1" or "<i8"'
            raise ContractError(key, f"{dtype!r} is no real number type with a byte order", remedy=remedy)
        found.append(canonical)
    return tuple(found)


def _read_shape(settings: Table) -> tuple[int | str, ...]:
    given = settings.value("shape")
    remedy = 'write for example shape = ["N", 3, 6, 7]'
    if not isinstance(given, list):
        raise ContractError(settings.key("shape"), "is missing or no list", remedy=remedy)
    for size in given:
        named = isinstance(size, str) and _DIMENSION.fullmatch(size)
        counted = isinstance(size, int) and not isinstance(size, bool) and size >= 0
        if not named and not counted:
            cause = f"{size!r} is neither a size nor a name of a dimension"
            raise ContractError(settings.key("shape"), cause, remedy=remedy)
    return tuple(given)
