"""The value rules of a contract, applied to one piece of an array at a time.

Pieces are sized to stay in a core's cache, so a rule costs little more than the arithmetic it needs. A fast path
only ever *accepts*, and only on sufficient evidence; what it does not accept is looked at again exactly.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from gamekeeper.data.array_rules import ArrayRule
from gamekeeper.data.verdicts import Defect, Refusal

Values = npt.NDArray[np.generic]
_Bits = type[np.uint16] | type[np.uint32] | type[np.uint64]
_BITS: dict[str, _Bits] = {"<f2": np.uint16, "<f4": np.uint32, "<f8": np.uint64}
_EPSILON = {"<f4": float(np.finfo(np.float32).eps), "<f8": float(np.finfo(np.float64).eps)}


class Finding(NamedTuple):
    """A broken rule: `row` counts within the piece."""

    defect: Defect
    row: int
    text: str


class PieceChecker:
    """Applies one array's rule to its pieces; a piece is a C-ordered array of shape (rows, elements of a row)."""

    def __init__(self, rule: ArrayRule, descr: str) -> None:
        self._rule = rule
        self._kind = descr[1]
        self._bits = _BITS.get(descr)
        self._bits_limit = _largest_in_bits(rule, descr) if self._bits is not None else -1
        self._bounded = rule.minimum is not None or rule.maximum is not None
        self._epsilon = _EPSILON.get(descr) if rule.minimum is not None and rule.minimum >= 0 else None

    def check(self, piece: Values, mask: Values | None) -> list[Finding]:
        """One finding for every broken rule; none when the piece is fine.

        `mask` has the piece's shape; it is the array that `zero_where_not` names.
        """
        found = self._check_elements(piece) if piece.size else []
        if found:
            return found
        if self._rule.row_sum is not None:
            found += self._check_row_sums(piece, self._rule.row_sum, self._rule.row_sum_tolerance)
        if self._rule.one_hot:
            bad = ((piece == 1).sum(axis=1) != 1) | ((piece != 0).sum(axis=1) != 1)
            found += _at_first(bad, Defect.ONE_HOT, "a row is not a single 1 among zeros")
        if mask is not None:
            bad = ((piece != 0) & (mask == 0)).any(axis=1)
            text = f"there is weight where {self._rule.zero_where_not!r} is zero"
            found += _at_first(bad, Defect.ILLEGAL_WEIGHT, text)
        return found

    def _check_elements(self, piece: Values) -> list[Finding]:
        if self._kind == "b" and int(piece.view(np.uint8).max()) > 1:
            row = int(piece.view(np.uint8).argmax()) // piece.shape[1]
            return [Finding(Defect.RANGE, row, "a truth value is neither 0 nor 1")]
        if self._kind == "f" and self._rule.finite:
            if self._bits is not None and int(piece.view(self._bits).max()) <= self._bits_limit:
                return []
        elif not self._bounded:
            return []
        return self._check_range(piece)

    def _check_range(self, piece: Values) -> list[Finding]:
        """Finite and within the bounds. The extreme elements decide exactly, and tell where a breach is."""
        width = piece.shape[1]
        at_low, at_high = int(piece.argmin()), int(piece.argmax())
        low, high = piece.flat[at_low].item(), piece.flat[at_high].item()
        if self._kind == "f" and not np.isfinite([low, high]).all():
            if self._rule.finite:
                # Of the two, a NaN stands at both places, and an infinity at its own.
                at = at_high if np.isfinite(low) else at_low
                return [Finding(Defect.NOT_FINITE, at // width, f"holds {piece.flat[at].item()}")]
            numbers = np.flatnonzero(~np.isnan(piece))
            if not numbers.size:
                return []
            kept = piece.reshape(-1)[numbers]
            at_low, at_high = int(numbers[kept.argmin()]), int(numbers[kept.argmax()])
            low, high = piece.flat[at_low].item(), piece.flat[at_high].item()
        found = []
        minimum, maximum = self._rule.minimum, self._rule.maximum
        if minimum is not None and low < minimum:
            found.append(Finding(Defect.RANGE, at_low // width, f"{low!r} is below min, {minimum!r}"))
        if maximum is not None and high > maximum:
            found.append(Finding(Defect.RANGE, at_high // width, f"{high!r} is above max, {maximum!r}"))
        return found

    def _check_row_sums(self, piece: Values, wanted: float, tolerance: float) -> list[Finding]:
        if self._epsilon is not None:
            # Without negative terms the rounding error is below length * epsilon * sum (Higham, Accuracy and
            # Stability of Numerical Algorithms, 4.2); rows within the tolerance less twice that need no second look.
            slack = 2 * piece.shape[1] * self._epsilon * (abs(wanted) + tolerance)
            near = (
                np.abs(np.einsum("ij->i", cast("npt.NDArray[np.float64]", piece)).astype(np.float64) - wanted)
                <= tolerance - slack
            )
            if near.all():
                return []
        with np.errstate(all="ignore"):
            sums = piece.sum(axis=1, dtype=np.float64)
        bad = ~(np.abs(sums - wanted) <= tolerance)
        row = int(bad.argmax()) if bad.size else 0
        text = (
            f"a row sums to {float(sums[row])!r}; wanted is {wanted!r} ± {tolerance!r}" if bad.any() else ""
        )
        return _at_first(bad, Defect.ROW_SUM, text)


class GameCounter:
    """Counts distinct whole numbers in bounded memory; raises `Refusal` (limit) above `most`."""

    def __init__(self, most: int, member: str) -> None:
        self._most = most
        self._member = member
        self._known: npt.NDArray[np.generic] | None = None
        self._fresh: list[npt.NDArray[np.generic]] = []
        self._fresh_size = 0

    def add(self, values: Values) -> None:
        """Take in the values of one piece."""
        flat = values.reshape(-1)
        # Samples of a game stand together, so dropping repeats first leaves little to sort.
        changed = np.ones(flat.size, dtype=np.bool_)
        changed[1:] = flat[1:] != flat[:-1]
        distinct = np.unique(flat[changed])
        self._fresh.append(distinct)
        self._fresh_size += distinct.size
        if self._fresh_size > max(1 << 16, 0 if self._known is None else self._known.size):
            self._merge()

    def count(self) -> int:
        """Number of distinct values so far."""
        self._merge()
        return 0 if self._known is None else self._known.size

    def _merge(self) -> None:
        parts = self._fresh if self._known is None else [self._known, *self._fresh]
        if parts:
            self._known = np.unique(np.concatenate(parts))
            self._fresh, self._fresh_size = [], 0
            if self._known.size > self._most:
                text = f"more than {self._most} distinct games in one file"
                raise Refusal(Defect.LIMIT, text, member=self._member)


def _at_first(bad: npt.NDArray[np.bool_], defect: Defect, text: str) -> list[Finding]:
    rows = np.flatnonzero(bad)
    return [Finding(defect, int(rows[0]), text)] if rows.size else []


def _largest_in_bits(rule: ArrayRule, descr: str) -> int:
    """The bit pattern, read as an unsigned number, up to which a float is surely within the rule; -1 when none is.

    Non-negative floats order like their bit patterns; negative ones, infinities and NaN lie above them all.
    """
    if rule.minimum is not None and rule.minimum > 0:
        return -1
    infinity = np.array(np.inf, dtype=descr)
    largest = np.nextafter(infinity, np.zeros_like(infinity))
    if rule.maximum is not None and rule.maximum < float(largest):
        if rule.maximum < 0:
            return -1
        largest = np.array(rule.maximum + 0.0, dtype=descr)  # makes minus zero, the largest of all bits, zero
        if float(largest) > rule.maximum:
            largest = np.nextafter(largest, np.zeros_like(largest))
    return int(np.asarray(largest).view(_BITS[descr]))
