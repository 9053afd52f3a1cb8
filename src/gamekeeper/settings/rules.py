"""Rules that bind several keys, and what is legal but suspicious.

Each rule is declared once, as data: the tests cross every one of them, and the reference page lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gamekeeper.core.receipts import BUILT_IN_KINDS
from gamekeeper.settings.keys import Layer, Path, spell
from gamekeeper.settings.layers import Stack
from gamekeeper.settings.masking import password_in
from gamekeeper.settings.schema import Document
from gamekeeper.settings.tree import find, instances, value_at

SHORT_LEASE_S = 5.0
LOOPBACK = frozenset({"localhost", "::1"})


@dataclass(frozen=True, slots=True)
class Order:
    """Two thresholds in their order. `strict`: they may not be equal. `why` completes "…, so"."""

    low: Path
    high: Path
    strict: bool
    why: str
    remedy: str

    def words(self) -> str:
        """The rule as the reference page tells it."""
        sign = "<" if self.strict else "≤"
        return f"`{'.'.join(self.low)}` {sign} `{'.'.join(self.high)}`"

    def keeps(self, low: float, high: float) -> bool:
        """Whether two values keep to it."""
        return low < high if self.strict else low <= high


def _order(low: str, sign: str, high: str, why: str, remedy: str) -> Order:
    return Order(tuple(low.split(".")), tuple(high.split(".")), sign == "<", why, remedy)


ORDERS = (
    _order(
        "lines.*.promotion.elo0", "<", "lines.*.promotion.elo1",
        "no result could tell the two apart",
        "elo0 is the gain that is not worth promoting, elo1 the one that is; raise elo1",
    ),
    _order(
        "lines.*.training.min_new_samples", "<=", "lines.*.training.window_samples",
        "samples would never be trained on",
        "raise window_samples or lower min_new_samples",
    ),
    _order(
        "lines.*.evaluation.pairs_per_job", "<=", "lines.*.promotion.max_pairs",
        "one job would play more than the whole test may",
        "lower pairs_per_job or raise max_pairs",
    ),
    _order(
        "admission.max_ready_per_producer", "<=", "admission.max_ready_in_all",
        "one producer's bound could never be met",
        "raise max_ready_in_all or lower max_ready_per_producer",
    ),
    _order(
        "admission.max_ready_per_kind", "<=", "admission.max_ready_in_all",
        "one kind's bound could never be met",
        "raise max_ready_in_all or lower max_ready_per_kind",
    ),
    _order(
        "job_parking.exclusion_first_s", "<=", "job_parking.exclusion_longest_s",
        "the first exclusion would already be too long",
        "raise exclusion_longest_s or lower exclusion_first_s",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, or suspicious: the key it is about, the place it was set in, the words and the remedy."""

    key: str
    place: str
    message: str
    remedy: str


def crossed(stack: Stack) -> Iterator[Problem]:
    """Thresholds in the wrong order, whatever else is wrong with the settings."""
    for order in ORDERS:
        for low in instances(order.low, stack.values):
            high = (
                tuple(mine if part == "*" else part for part, mine in zip(order.high, low, strict=False))
                + (order.high[len(low) :])
            )
            values = _number(stack, low), _number(stack, high)
            if values[0] is None or values[1] is None or order.keeps(values[0], values[1]):
                continue
            relation = "is not below" if order.strict else "exceeds"
            first = f"{spell(low)} = {values[0]}{'' if place(stack, low) else ' (default)'}"
            second = f"{spell(high)} = {values[1]}{_said(stack, high)}"
            yield Problem(
                spell(low),
                place(stack, low) or place(stack, high),
                f"{first} {relation} {second}, so {order.why}",
                order.remedy,
            )


def exclusive(stack: Stack) -> Iterator[Problem]:
    """Keys of which only one may be set."""
    url, passfile = (_text(stack, ("store", key)) for key in ("url", "passfile"))
    if passfile and not url:
        yield Problem(
            "store.passfile",
            place(stack, ("store", "passfile")),
            "store.passfile is set, but store.url is not: a SQLite file has no password",
            "set store.url to a PostgreSQL database, or remove store.passfile",
        )
    elif passfile and _holds_password(url):
        yield Problem(
            "store.passfile",
            place(stack, ("store", "passfile")),
            f"store.passfile is set, but store.url{_said(stack, ('store', 'url'))} holds a password, too",
            "remove one of them",
        )


def suspicious(document: Document, stack: Stack) -> Iterator[Problem]:
    """What is legal, and yet hardly meant so."""
    for override in stack.overrides:
        yield Problem(
            spell(override.path),
            str(override.weaker),
            f"{spell(override.path)} is set here, but {override.stronger} wins",
            "remove one of them if that is not meant",
        )
    origin = stack.origin(("store", "url"))
    if origin and origin.layer is not Layer.ENVIRONMENT and password_in(document.store.url):
        yield _warning(
            stack, ("store", "url"), "a password stands where others may read it",
            "set GAMEKEEPER_STORE__URL instead, or store.passfile",
        )  # fmt: skip
    host = document.coordinator.host
    if host not in LOOPBACK and not host.startswith("127."):
        yield _warning(
            stack, ("coordinator", "host"), f"{host} can be reached from other machines, without encryption",
            "make sure that only a trusted network reaches it",
        )  # fmt: skip
    if document.coordinator.lease_s < SHORT_LEASE_S:
        yield _warning(
            stack, ("coordinator", "lease_s"),
            f"a pause of {document.coordinator.lease_s:g} s ends a lease, and all work under it",
            f"use {SHORT_LEASE_S:g} or more outside of tests",
        )  # fmt: skip
    if document.job_parking.exclusion_first_s < document.coordinator.lease_s:
        yield _warning(
            stack, ("job_parking", "exclusion_first_s"),
            "a machine is left out for less time than it takes to notice that it is gone (coordinator.lease_s)",
            "raise it",
        )  # fmt: skip
    if not document.lines:
        yield Problem("lines", "", "no line is declared, so there is no loop to turn", "declare [lines.NAME]")
    yield from _strangers(document, stack)


def _strangers(document: Document, stack: Stack) -> Iterator[Problem]:
    """Shares given to lines and kinds that nobody declared."""
    shares = document.distribution
    lines = [("line_weights", line, line) for line in shares.line_weights]
    lines += [("minimums", lane, lane.partition("/")[0]) for lane in shares.minimums]
    for table, key, line in lines:
        if line not in document.lines:
            yield _warning(
                stack, ("distribution", table, key), f"no line is called {line}", "correct the name"
            )
    kinds = {*BUILT_IN_KINDS, *document.kinds}
    used = [("weights", lane, lane.partition("/")[0]) for lane in shares.weights]
    used += [("minimums", lane, lane.split("/")[1]) for lane in shares.minimums if "/" in lane]
    for table, key, kind in used:
        if kind not in kinds:
            yield _warning(
                stack, ("distribution", table, key), f"no kind of jobs is called {kind}",
                "correct the name, or declare it as [kinds.NAME]",
            )  # fmt: skip


def _warning(stack: Stack, path: Path, message: str, remedy: str) -> Problem:
    return Problem(spell(path), place(stack, path), f"{spell(path)}: {message}", remedy)


def place(stack: Stack, path: Path) -> str:
    """Where the value at `path` was set; "" for a default."""
    origin = stack.origin(path)
    return str(origin) if origin and path in stack.origins else ""


def _said(stack: Stack, path: Path) -> str:
    return f" ({place(stack, path) or 'default'})"


def _number(stack: Stack, path: Path) -> float | None:
    """The number in force at `path`, its default included; `None` where there is none."""
    try:
        value = value_at(stack.values, path)
    except KeyError:
        key = find(path)
        value = key.default if key is not None else None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(stack: Stack, path: Path) -> str:
    try:
        value = value_at(stack.values, path)
    except KeyError:
        return ""
    return value if isinstance(value, str) else ""


def _holds_password(url: str) -> bool:
    try:
        return password_in(url)
    except ValueError:
        return False
