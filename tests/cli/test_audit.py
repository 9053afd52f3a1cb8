"""Hashing all visible artifacts again."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.cli.audit import audit


def put(root: Path, content: bytes) -> Path:
    digest = blake3(content).hexdigest()
    path = root / digest[:2] / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@given(
    st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=6, unique=True),
    st.sets(st.integers(0, 5)),
    st.sets(st.integers(0, 5)),
)
def test_exactly_the_damaged_and_the_missing_are_found(
    contents: list[bytes], damaged: set[int], missing: set[int]
) -> None:
    """The report would claim whole data over a rotten or lost file."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        paths = [put(root, content) for content in contents]
        missing = {i for i in missing if i < len(paths)}
        damaged = {i for i in damaged if i < len(paths)} - missing
        for i in damaged:
            paths[i].write_bytes(contents[i] + b"!")
        for i in missing:
            paths[i].unlink()
        found = audit(root, [path.name for path in paths])
        assert set(found.lost) == {paths[i].name for i in damaged | missing}
        assert set(found.unverified) == {str(paths[i].relative_to(root)) for i in damaged}
        assert found.bytes_hashed == sum(
            len(content) + (i in damaged) for i, content in enumerate(contents) if i not in missing
        )


def test_strangers_in_the_folder_are_unverified(tmp_path: Path) -> None:
    """A file under another name, or a link to somewhere else, would pass as verified data."""
    good = put(tmp_path, b"good")
    (tmp_path / "stray.npz").write_bytes(b"stray")
    os.symlink(good, tmp_path / "ab")
    found = audit(tmp_path, [good.name])
    assert found.lost == ()
    assert sorted(found.unverified) == ["ab", "stray.npz"]


def test_a_verified_file_nobody_was_promised_is_neither_lost_nor_unverified(tmp_path: Path) -> None:
    """A crash between making a file visible and booking it would be reported as damage."""
    put(tmp_path, b"orphan")
    assert audit(tmp_path, []).unverified == ()
    assert audit(tmp_path / "absent", ["f" * 64]).lost == ("f" * 64,)
