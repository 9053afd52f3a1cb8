"""The generated reference pages are what the code says."""

from __future__ import annotations

from tools import reference_pages


def test_no_reference_page_is_out_of_date() -> None:
    """A state, receipt field or event that changed without its page would mislead readers."""
    assert reference_pages.main(["--check"]) == 0


def test_pages_name_every_event_and_state() -> None:
    """A renderer that drops rows would keep matching its own output."""
    text = "".join(reference_pages.pages().values())
    for word in ("attempt-leased", "champion-moved", "`hollow`", "`lease-expired`", "`waiting`", "pairs"):
        assert word in text
