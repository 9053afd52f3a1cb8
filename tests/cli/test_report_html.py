"""The report as a page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.cli import svg
from gamekeeper.cli.report_html import report_html
from gamekeeper.inspection import Report
from tests.cli import samples

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Strict(HTMLParser):
    """Fails on tags that do not match; collects text, attributes and tag names."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(report: Report) -> Strict:
    parser = Strict()
    parser.feed(report_html(report))
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize("report", [samples.REPORT, samples.EMPTY_REPORT], ids=["full", "empty"])
def test_the_page_is_whole_and_fetches_nothing(report: Report) -> None:
    """A browser would show a broken page, or the report would need the network."""
    page = parsed(report)
    assert {"script", "link", "img", "iframe", "object", "use"}.isdisjoint(page.tags)
    assert not [
        name for name, _ in page.attributes if name in ("src", "href", "xlink:href") or name.startswith("on")
    ]
    assert not re.search(r"https?:|url\(|@import|//[a-z]", report_html(report))


def test_every_figure_of_the_report_is_on_the_page() -> None:
    """The page would leave out what the report promises."""
    text = " ".join(parsed(samples.REPORT).words)
    for promised in ("94.3 %", "34.2 MB", "8 min 12 s", "4,096 verified games", "+480", "[+400, +600]", "-240", "+260",
                     "+3.11", "α 0.05, β 0.05", "1 · 2 · 8 · 10 · 33", "83.3 %", "whole", "1 lost"):  # fmt: skip
        assert promised in text, promised


def test_damage_is_not_dressed_up() -> None:
    """Lost data would be shown as whole."""
    text = " ".join(parsed(samples.EMPTY_REPORT).words)
    assert "2 lost, 1 unverified" in text
    assert "whole" not in text


@given(st.text(max_size=30))
def test_names_cannot_inject_markup(name: str) -> None:
    """A line or an opponent with a crafted name would run code in the reader's browser."""
    line = samples.REPORT.lines[0]
    rating = line.ratings[0].model_copy(update={"elo": {name: samples.elo(1, 0, 2, 0, 0, 5, 0, 0)}})
    hostile = line.model_copy(
        update={"line": f"<script>{name}", "ratings": [rating], "champion_hash": "<img src=x>"}
    )
    page = parsed(samples.REPORT.model_copy(update={"lines": [hostile]}))
    assert {"script", "img"}.isdisjoint(page.tags)


@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 20), st.floats(-4000, 4000), st.floats(0, 900)), min_size=1, max_size=6
        ),
        min_size=1,
        max_size=4,
    )
)
def test_every_mark_lies_within_the_chart(rows: list[list[tuple[int, float, float]]]) -> None:
    """A point or an interval would be drawn outside the picture, where nobody sees it."""
    series = [
        svg.Series(f"s{i}", "s0", [svg.Mark(x, y, y - spread, y + spread) for x, y, spread in row])
        for i, row in enumerate(rows)
    ]
    ticks = sorted({float(x) for row in rows for x, _, _ in row})
    drawn = svg.line_chart(series, title="t", x_label="x", y_label="y", x_ticks=ticks, with_zero=True)
    tree = ElementTree.fromstring(drawn)
    dots = [node for node in tree.iter() if node.tag == "circle"]
    assert len(dots) == sum(map(len, rows))
    for dot in dots:
        assert 0 <= float(dot.attrib["cx"]) <= svg.WIDTH
        assert 0 <= float(dot.attrib["cy"]) <= 280


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20), st.booleans())
def test_an_axis_covers_its_values_with_few_round_ticks(values: list[float], with_zero: bool) -> None:
    """A chart would clip its data or drown it in grid lines."""
    axis = svg.nice_axis(values, with_zero=with_zero)
    slack = 1e-6 * max(1.0, *map(abs, values))
    assert axis.low <= min(values) + slack
    assert axis.high >= max(values) - slack
    assert 2 <= len(axis.ticks) <= 9
    if with_zero:
        assert any(abs(tick) < slack for tick in axis.ticks)


@given(st.lists(st.integers(0, 500), min_size=5, max_size=5).filter(any))
def test_bars_are_in_proportion(pairs: list[int]) -> None:
    """The picture of a promotion test would lie about its pairs."""
    tree = ElementTree.fromstring(svg.share_bars([("m", pairs)], title="t", parts=["a", "b", "c", "d", "e"]))
    widths = {rect.attrib["class"]: float(rect.attrib["width"]) for rect in tree.iter() if rect.tag == "rect"}
    room = svg.WIDTH - 96 - svg.RIGHT
    assert set(widths) == {f"p{i}" for i, amount in enumerate(pairs) if amount}
    for i, amount in enumerate(pairs):
        if amount:
            assert abs(widths[f"p{i}"] - room * amount / sum(pairs)) <= 1.1
