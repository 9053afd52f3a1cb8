"""Callers that share one call: what one of them breaks harms no other, and nobody hears before the commit."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.errors import Refused
from gamekeeper.store import integrity
from gamekeeper.store.engine import FileStore, Store
from gamekeeper.store.session import Writing
from tests.unit.store.rig import ENGINES, Rig, TurnedClock, open_rig, touch

FINE, REFUSED, POISON, ALONE, BROKEN = "fine", "refused", "poison", "alone", "broken"
KINDS = st.lists(st.sampled_from([FINE, FINE, FINE, REFUSED, POISON, ALONE, BROKEN]), min_size=1, max_size=12)


def joint(w: Writing, items: Sequence[str]) -> list[int | BaseException]:
    """Store a job for each item; a poisonous one raises after it has written, one that is refused is answered so."""
    answers: list[int | BaseException] = []
    for item in items:
        if item.startswith(REFUSED):
            answers.append(Refused(item))
            continue
        answers.append(touch(w, item))
        if item.startswith(POISON):
            raise Refused(item)
    return answers


def alone(w: Writing, item: str) -> int:
    """An ordinary write; a broken one raises after it has written."""
    job_id = touch(w, item)
    if item.startswith(BROKEN):
        raise Refused(item)
    return job_id


async def together(store: Store, items: Sequence[str]) -> list[int | BaseException]:
    """Ask for all of it while the writer is busy, so that it is served by one commit."""
    busy, go = threading.Event(), threading.Event()

    def wait(w: Writing) -> None:
        busy.set()
        go.wait(60)

    first = asyncio.ensure_future(store.awrite(wait))
    await asyncio.to_thread(busy.wait, 60)

    def ask(item: str) -> asyncio.Future[int]:
        if item.startswith((ALONE, BROKEN)):
            return asyncio.ensure_future(store.awrite(lambda w: alone(w, item)))
        return asyncio.ensure_future(store.ajoin(joint, item))

    asked = [ask(item) for item in items]
    await asyncio.sleep(0)
    go.set()
    await first
    return list(await asyncio.gather(*asked, return_exceptions=True))


def keys_in(path: str) -> set[str]:
    with sqlite3.connect(path) as link:
        return {row[0] for row in link.execute("SELECT job_key FROM jobs")}


@given(kinds=KINDS)
@settings(max_examples=40, deadline=None)
def test_a_poisonous_item_harms_no_other(kinds: list[str]) -> None:
    """Breaks if one caller's error undoes another's work, leaves a trace of its own, or reaches the wrong caller."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gamekeeper.db"
        with FileStore(path, TurnedClock(), None) as store:
            items = [f"{kind} {place}" for place, kind in enumerate(kinds)]
            answers = asyncio.run(together(store, items))
            # One commit for all; a caller who fails alone has nothing to commit.
            failed_alone = len(items) == 1 and not items[0].startswith((FINE, ALONE))
            assert store.commits == (1 if failed_alone else 2)
            for item, answer in zip(items, answers, strict=True):
                if item.startswith((FINE, ALONE)):
                    assert isinstance(answer, int)
                else:
                    assert isinstance(answer, Refused)
                    assert answer.message == item
            assert keys_in(str(path)) == {item for item in items if item.startswith((FINE, ALONE))}
            assert store.read(integrity.check) == []


def test_items_come_in_order_and_in_one_call(tmp_path: Path) -> None:
    """Breaks if callers of the same work are served one by one, or see each other's answers."""
    calls: list[list[str]] = []

    def note(w: Writing, items: Sequence[str]) -> list[str]:
        calls.append(list(items))
        return [item.upper() for item in items]

    async def ask(store: Store) -> list[str]:
        busy, go = threading.Event(), threading.Event()

        def wait(w: Writing) -> None:
            busy.set()
            go.wait(60)

        first = asyncio.ensure_future(store.awrite(wait))
        await asyncio.to_thread(busy.wait, 60)
        asked = [asyncio.ensure_future(store.ajoin(note, item)) for item in "abcde"]
        await asyncio.sleep(0)
        asked[2].cancel()
        await asyncio.sleep(0)
        go.set()
        await first
        return await asyncio.gather(*(each for each in asked if each is not asked[2]))

    with Store.open(tmp_path / "gamekeeper.db", TurnedClock()) as store:
        assert asyncio.run(ask(store)) == list("ABDE")
    assert calls == [list("abde")]


def test_nobody_hears_before_the_commit(tmp_path: Path) -> None:
    """Breaks if a caller is answered while a crash could still undo what it was told."""
    path = tmp_path / "gamekeeper.db"
    seen: list[bool] = []

    def look(key: str, _: Future[int]) -> None:
        seen.append(key in keys_in(str(path)))

    with FileStore(path, TurnedClock(), None) as store:
        futures = [store._submit(partial(touch, key=f"k{n}")) for n in range(5)]
        for n, future in enumerate(futures):
            future.add_done_callback(partial(look, f"k{n}"))
        for future in futures:
            future.result(60)
        for n in range(5):
            assert store.join(joint, f"{FINE} {n}")
            assert f"{FINE} {n}" in keys_in(str(path))
    assert seen == [True] * 5


@pytest.fixture(params=ENGINES)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return open_rig(request.param, tmp_path)


def test_joining_means_the_same_on_every_engine(rig: Rig) -> None:
    """Breaks if an engine answers a joined request otherwise than the others."""
    with rig.store as store:
        assert store.join(joint, FINE) == 1
        with pytest.raises(Refused, match=REFUSED):
            store.join(joint, REFUSED)
        with pytest.raises(Refused, match=POISON):
            store.join(joint, POISON)
        with pytest.raises(RuntimeError, match="0 answers to 1 joined"):
            store.join(lambda w, items: [], FINE)
        assert asyncio.run(store.ajoin(joint, "fine again")) > 1
        rig.check()
