from __future__ import annotations

import os
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from gamekeeper.core.errors import Refused
from gamekeeper.data.safe_paths import UnsafeName, safe_child


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "./a", "a/.", ".a", "a.", "a/.b/c", "~a", "a\\b", "C:a",
     "a\0b", "a\nb", "a\n", " a", "a b", "-a", "é", "a" * 201, "/".join("a" * 17), "a*", "$a", "%2e%2e/a", "a;b", "ａ",
     "..\\a"],
)  # fmt: skip
def test_odd_names_are_refused(name: str, tmp_path: Path) -> None:
    """A name from outside reaches a file that is not below the folder, or one that tools cannot name."""
    with pytest.raises(UnsafeName) as caught:
        safe_child(tmp_path, name)
    assert isinstance(caught.value, Refused)
    assert caught.value.exit_code == 5
    assert caught.value.remedy


@pytest.mark.parametrize(
    "name", ["a", "A-1_b+c.npz", "in/puts/x.y.z", "a" * 200, "_", "/".join("a" * 16), "a..b", "0"]
)
def test_plain_names_are_allowed(name: str, tmp_path: Path) -> None:
    """A name that an honest job uses is refused."""
    assert safe_child(tmp_path, name) == tmp_path / name


@given(name=st.text(st.sampled_from("ab./\\~-\0 \né%"), max_size=12) | st.text(max_size=8))
@settings(deadline=None)
def test_what_is_allowed_stays_below(name: str) -> None:
    """Some combination of plain looking parts leads outside."""
    root = Path("/srv/data")
    try:
        path = safe_child(root, name)
    except UnsafeName:
        return
    assert Path(os.path.normpath(path)) == path
    assert path.is_relative_to(root)
    assert path != root
    assert not any(part.startswith(".") for part in path.relative_to(root).parts)


def test_links_are_not_followed(tmp_path: Path) -> None:
    """A job plants a link in its folder, and what is written there lands elsewhere."""
    root = tmp_path / "root"
    (root / "real").mkdir(parents=True)
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "real")
    (root / "real" / "file").symlink_to("/etc/passwd")
    (root / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("out", "out/x", "in/x", "real/file", "dangling"):
        with pytest.raises(UnsafeName):
            safe_child(root, name)
    assert safe_child(root, "real/x") == root / "real" / "x"
    (tmp_path / "alias").symlink_to(root)
    assert safe_child(tmp_path / "alias", "real") == tmp_path / "alias" / "real"
