"""Names from outside, turned into paths that cannot leave their folder."""

from __future__ import annotations

import re
from pathlib import Path

from gamekeeper.core.errors import Refused

_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.+-]{0,198}[A-Za-z0-9_+-])?", re.ASCII)
_MAX_PARTS = 16


class UnsafeName(Refused):
    """A name from outside is not one that may become a path."""

    code = "unsafe-name"


def safe_child(root: Path, name: str) -> Path:
    """The path of `name` (plain parts, separated by `/`) below `root`; need not exist yet.

    A part is 1 to 200 ASCII letters, digits and `_ . + -`, and neither begins nor ends with a dot, so hidden
    and temporary files, `..`, absolute paths, drive letters, control characters and other odd names are all refused.
    So is a path on which a part below `root` is a symbolic link, whether or not it leads outside. Whoever may
    write to `root` can still swap a folder for a link afterwards: the folder must belong to us.

    Raises `UnsafeName`.
    """
    parts = name.split("/")
    if len(parts) > _MAX_PARTS or not all(_PART.fullmatch(part) for part in parts):
        raise UnsafeName(
            f"{name!r:.120} is no acceptable file name below {root}",
            remedy="use letters, digits and _ . + -, folders separated by /, no dot at either end of a part",
        )
    path = root
    for part in parts:
        path /= part
        if path.is_symlink():
            raise UnsafeName(
                f"{path} is a symbolic link; {name!r} may not pass through it",
                remedy="replace the link by a folder",
            )
    return path
