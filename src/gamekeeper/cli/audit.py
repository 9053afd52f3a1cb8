"""Hashing every visible artifact again, so that the report's figures on the data are measured and not believed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gamekeeper.core.receipts import is_hash

PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Audit:
    """lost: catalogued artifacts whose file is gone or holds other bytes. unverified: visible files that do not hold
    the bytes they are named by. bytes_hashed: what was read to find out.
    """

    lost: tuple[str, ...]
    unverified: tuple[str, ...]
    bytes_hashed: int


def audit(visible: Path, catalogued: Iterable[str]) -> Audit:
    """Hash every file below `visible` (the folder `blake3` of the artifact store) and compare it with the catalogue.

    A file whose bytes fit its name but that is not catalogued was verified and never acknowledged (a crash
    between the two): nobody was promised it, so it is neither lost nor unverified.
    """
    good: set[str] = set()
    unverified: list[str] = []
    hashed = 0
    for path in sorted(visible.rglob("*")) if visible.is_dir() else []:
        if path.is_dir() and not path.is_symlink():
            continue
        digest, size = ("", 0) if path.is_symlink() or not path.is_file() else _digest(path)
        hashed += size
        if is_hash(path.name) and digest == path.name:
            good.add(path.name)
        else:
            unverified.append(str(path.relative_to(visible)))
    lost = sorted(set(catalogued) - good)
    return Audit(tuple(lost), tuple(unverified), hashed)


def _digest(path: Path) -> tuple[str, int]:
    from blake3 import blake3

    hasher, size = blake3(), 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            hasher.update(piece)
            size += len(piece)
    return hasher.hexdigest(), size
