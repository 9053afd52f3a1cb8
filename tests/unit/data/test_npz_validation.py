from __future__ import annotations

import os
import random
import stat
import tracemalloc
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from gamekeeper.data import array_scan, member_stream
from gamekeeper.data.array_contract import Contract
from gamekeeper.data.npz_validation import Declared, validate
from gamekeeper.data.verdicts import Defect, Limits, State, Verdict
from tests.thoroughness import examples, stride
from tests.unit.data import npz_corpus as corpus
from tests.unit.data import npz_defects as defects
from tests.unit.data.zip_builder import Part, build, npy

CASES = defects.all_cases()


def judge(folder: Path, data: bytes, contract: Contract = corpus.CONTRACT, **options: object) -> Verdict:
    path = folder / "shard.npz"
    path.write_bytes(data)
    return validate(path, contract, **options)  # type: ignore[arg-type]


def loaded(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    with np.load(path, allow_pickle=False) as archive:
        return {
            name: (archive[name].dtype.str, archive[name].shape, archive[name].tobytes()) for name in archive
        }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_corpus(case: corpus.Case, tmp_path: Path) -> None:
    """A legal oddity is refused, a bad file passes, or it is refused for another reason than its own."""
    verdict = judge(tmp_path, case.data, corpus.OPEN if case.open else corpus.CONTRACT)
    if case.defect is None:
        assert (verdict.state, verdict.reasons) == (State.OK, ())
        assert (verdict.samples, verdict.games, verdict.bytes) == (corpus.N, 3, len(case.data))
    else:
        assert (verdict.state, verdict.defect) == (State.BAD, case.defect), verdict.reasons
        assert (verdict.samples, verdict.games) == (None, None)
        assert all(reason.text for reason in verdict.reasons)


@pytest.mark.parametrize("case", [case for case in CASES if case.defect is None], ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore:Reading .*:UserWarning")
def test_numpy_reads_what_is_accepted(case: corpus.Case, tmp_path: Path) -> None:
    """A file passes that the trainer's numpy.load then cannot read."""
    (tmp_path / "shard.npz").write_bytes(case.data)
    assert set(loaded(tmp_path / "shard.npz")) >= set(corpus.arrays())


def test_corpus_is_a_corpus() -> None:
    """Two cases of one name would hide each other, and few cases would prove little."""
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= 250
    assert {case.defect for case in CASES} >= set(Defect) - {
        Defect.NOT_A_FILE, Defect.SAMPLES_MISMATCH, Defect.GAMES_MISMATCH, Defect.UNREADABLE, Defect.CHANGED,
    }  # fmt: skip


@pytest.mark.unmeasured
@pytest.mark.parametrize(
    "case", [case for case in CASES if len(case.data) < 1 << 16], ids=lambda case: case.name
)
def test_pieces_do_not_matter(case: corpus.Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule is lost, or a row torn, where one piece of the data ends and the next begins."""
    contract = corpus.OPEN if case.open else corpus.CONTRACT
    whole = judge(tmp_path, case.data, contract)
    monkeypatch.setattr(member_stream, "_PACKED_PIECE", 3)
    for piece in (8, 24, 100):
        monkeypatch.setattr(array_scan, "PIECE", piece)
        monkeypatch.setattr(member_stream, "PIECE", piece)
        pieces = judge(tmp_path, case.data, contract)
        assert (pieces.state, pieces.defect, pieces.samples, pieces.games) == (
            whole.state, whole.defect, whole.samples, whole.games,
        ), piece  # fmt: skip


@given(
    samples=st.integers(2, 300),
    seed=st.integers(0, 2**32),
    games=st.integers(1, 20),
    compressed=st.booleans(),
)
@examples(40)
def test_accepts_what_numpy_writes(
    tmp_path_factory: pytest.TempPathFactory, samples: int, seed: int, games: int, compressed: bool
) -> None:
    """An honest shard is refused, or its samples and games are miscounted."""
    arrays = corpus.arrays(samples, seed)
    arrays["game"] = np.random.default_rng(seed).integers(-games, games, samples).astype(np.int32)
    data = corpus.saved(arrays, compressed=compressed)
    verdict = judge(tmp_path_factory.mktemp("npz"), data)
    assert verdict == Verdict(State.OK, (), samples, len(set(arrays["game"].tolist())), len(data))


def small_archives() -> dict[str, bytes]:
    """Archives of a few hundred bytes, with every kind of record between them."""
    tiny = {"v": np.array([0.5, -1], np.float32)}
    wide = [
        Part(f"{name}.npy".encode(), npy(value), 8, local_wide=True, central_wide=True)
        for name, value in tiny.items()
    ]
    described = [
        Part(f"{name}.npy".encode(), npy(value), 8, descriptor="signed") for name, value in tiny.items()
    ]
    return {
        "stored": corpus.saved(tiny), "deflated": corpus.saved(tiny, compressed=True),
        "zip64": build(wide, zip64_end=True, comment=b"c"), "descriptors": build(described),
    }  # fmt: skip


TINY = Contract.from_mapping({"arrays": {"v": {"dtype": "<f4", "shape": ["N"]}}})


@pytest.mark.unmeasured
@pytest.mark.parametrize("name", [*small_archives(), "five arrays"])
def test_every_truncation_is_bad(name: str, tmp_path: Path) -> None:
    """A transfer that broke off passes at some length."""
    tiny = small_archives().get(name)
    data = build(corpus.parts(), zip64_end=True) if tiny is None else tiny
    contract, step = (corpus.CONTRACT, stride(7)) if tiny is None else (TINY, 1)
    for length in [*range(0, len(data), step), len(data) - 1]:
        verdict = judge(tmp_path, data[:length], contract)
        assert verdict.state is State.BAD, length
        assert verdict.defect in (Defect.TRUNCATED, Defect.NOT_ZIP), length


@pytest.mark.unmeasured
@pytest.mark.parametrize(("start", "name"), list(enumerate(small_archives())))
@pytest.mark.filterwarnings("ignore:Reading .*:UserWarning")
def test_bit_flips_are_bad_or_harmless(start: int, name: str, tmp_path: Path) -> None:
    """One flipped bit changes what the trainer would load, and the file still passes.

    A quick run flips two or three bits of each byte, others in each archive.
    """
    data = bytearray(small_archives()[name])
    path = tmp_path / "shard.npz"
    path.write_bytes(data)
    truth = loaded(path)
    assert judge(tmp_path, bytes(data), TINY).state is State.OK
    flipped = range(start % stride(3), len(data) * 8, stride(3))
    harmless = 0
    for bit in flipped:
        data[bit // 8] ^= 1 << bit % 8
        verdict = judge(tmp_path, bytes(data), TINY)
        assert verdict.state is not State.UNKNOWN
        if verdict.state is State.OK:
            harmless += 1
            assert loaded(path) == truth, f"bit {bit}"
        data[bit // 8] ^= 1 << bit % 8
    # Version numbers, attributes and the like carry no data; nearly everything else is said twice or summed.
    assert harmless < len(flipped) * 0.1


@given(data=st.data())
@pytest.mark.unmeasured
@examples(150)
def test_random_damage_never_raises_nor_passes_changed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cutting, repeating and overwriting stretches makes the validator crash, or changes arrays that still pass."""
    base = data.draw(st.sampled_from([*small_archives().values(), corpus.saved(corpus.arrays())]))
    changed = bytearray(base)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed)))
        end = min(len(changed), at + data.draw(st.integers(0, 40)))
        kind = data.draw(st.sampled_from(["cut", "repeat", "overwrite"]))
        if kind == "cut":
            del changed[at:end]
        elif kind == "repeat":
            changed[at:at] = changed[at:end]
        else:
            changed[at:end] = data.draw(st.binary(min_size=end - at, max_size=end - at))
    folder = tmp_path_factory.mktemp("npz")
    for contract in (TINY, corpus.CONTRACT):
        verdict = judge(folder, bytes(changed), contract)
        assert verdict.state is not State.UNKNOWN
        if verdict.state is State.OK:
            (folder / "base.npz").write_bytes(base)
            assert loaded(folder / "shard.npz") == loaded(folder / "base.npz")


class _Bait:
    """Makes a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_never_unpickles(tmp_path: Path) -> None:
    """Validating a hostile file runs code that it brought along."""
    bait = tmp_path / "bitten"
    data = corpus.saved(corpus.arrays() | {"values": np.array([_Bait(bait)] * corpus.N, dtype=object)})
    assert judge(tmp_path, data, corpus.OPEN).defect is Defect.OBJECT_DTYPE
    assert not bait.exists()
    with np.load(tmp_path / "shard.npz", allow_pickle=True) as archive:
        assert archive["values"] is not None
    assert bait.exists(), "the bait itself does not work"


@pytest.mark.parametrize("case", list(defects.bombs()), ids=lambda case: case.name)
def test_bombs_cost_nothing(case: corpus.Case, tmp_path: Path) -> None:
    """A small file makes the validator allocate what its headers claim."""
    path = tmp_path / "bomb.npz"
    path.write_bytes(case.data)
    tracemalloc.start()
    verdict = validate(path, corpus.OPEN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert verdict.state is State.BAD
    assert peak < 4 << 20


@pytest.mark.parametrize("compressed", [False, True])
def test_memory_does_not_grow_with_the_file(compressed: bool, tmp_path: Path) -> None:
    """A large array is held in memory at once."""
    path = tmp_path / "large.npz"
    samples = 4 << 20
    arrays = {
        "v": np.random.default_rng(0).random(samples, np.float32),
        "game": np.arange(samples, dtype="<i4") // 99,
    }
    corpus.save_arrays(path, arrays, compressed=compressed)
    rules = {"v": {"dtype": "<f4", "shape": ["N"]}, "game": {"dtype": "<i4", "shape": ["N"]}}
    contract = Contract.from_mapping({"arrays": rules, "games_from": "game"})
    tracemalloc.start()
    verdict = validate(path, contract)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (verdict.state, verdict.samples) == (State.OK, samples)
    assert peak < 8 << 20


def test_limits_are_obeyed(tmp_path: Path) -> None:
    """A limit that the caller sets is ignored, or binds one below what it says."""
    data = corpus.saved(corpus.arrays())
    unpacked = sum(len(npy(array)) for array in corpus.arrays().values())
    for limits, defect in (
        (Limits(max_members=5), None), (Limits(max_members=4), Defect.LIMIT),
        (Limits(max_unpacked=unpacked), None), (Limits(max_unpacked=unpacked - 1), Defect.BOMB),
        (Limits(max_games=3), None), (Limits(max_games=2), Defect.LIMIT),
        (Limits(max_row=28), None), (Limits(max_row=27), Defect.LIMIT),
        (Limits(max_directory=10), Defect.LIMIT),
        (Limits(max_ratio=1.0, ratio_free=0), None), (Limits(max_ratio=0.5, ratio_free=0), Defect.BOMB),
    ):  # fmt: skip
        assert judge(tmp_path, data, limits=limits).defect == defect, limits
    broken = corpus.saved(dict.fromkeys(corpus.arrays(), np.zeros(3)))
    assert len(judge(tmp_path, broken).reasons) > 3
    assert len(judge(tmp_path, broken, limits=Limits(max_reasons=3)).reasons) == 3


def test_declared_counts_must_be_true(tmp_path: Path) -> None:
    """A manifest that claims more than the file holds is believed."""
    data = corpus.saved(corpus.arrays())
    n = corpus.N
    assert judge(tmp_path, data, declared=Declared(n, 3)).state is State.OK
    assert judge(tmp_path, data, declared=Declared(None, 3)).state is State.OK
    assert judge(tmp_path, data, declared=Declared(n + 1, 3)).defect is Defect.SAMPLES_MISMATCH
    assert judge(tmp_path, data, declared=Declared(n, 4)).defect is Defect.GAMES_MISMATCH
    both = judge(tmp_path, data, declared=Declared(n - 1, 2))
    assert [reason.defect for reason in both.reasons] == [Defect.SAMPLES_MISMATCH, Defect.GAMES_MISMATCH]
    tiny = judge(tmp_path, small_archives()["stored"], TINY, declared=Declared(2, 99))
    assert (tiny.state, tiny.games) == (State.OK, None)


def test_reasons_say_where(tmp_path: Path) -> None:
    """The person who reads the verdict is not told which member and row to look at."""
    arrays = corpus.arrays(100_000)
    arrays["features"][77_777, 1, 2, 0] = np.nan
    arrays["values"][99_999] = 3
    verdict = judge(tmp_path, corpus.saved(arrays))
    found = [(reason.member, reason.row, reason.defect) for reason in verdict.reasons]
    assert found == [("features.npy", 77_777, Defect.NOT_FINITE), ("values.npy", 99_999, Defect.RANGE)]
    assert "3.0 is above max, 1" in verdict.reasons[1].text
    junk = judge(tmp_path, corpus.saved(arrays) + b"junk")
    assert junk.reasons[0].offset is not None
    assert junk.as_json()["reasons"] == [
        {"class": "junk", "text": junk.reasons[0].text, "offset": junk.reasons[0].offset}
    ]
    document = verdict.as_json()
    assert (document["verdict"], document["class"], document["samples"]) == ("bad", "not-finite", None)
    assert document["reasons"][0]["row"] == 77_777  # type: ignore[index]
    assert document["reasons"][0]["member"] == "features.npy"  # type: ignore[index]
    good = judge(tmp_path, corpus.saved(corpus.arrays())).as_json()
    assert (good["verdict"], good["class"], good["reasons"], good["games"]) == ("ok", None, [], 3)


def test_long_rows_are_placed(tmp_path: Path) -> None:
    """A row longer than a piece is given the wrong number."""
    contract = Contract.from_mapping({"arrays": {"big": {"dtype": "<f4", "shape": ["N", "P"]}}})
    big = np.zeros((5, 100_000), np.float32)
    big[3, 5] = np.inf
    verdict = judge(tmp_path, corpus.saved({"big": big}), contract)
    assert (verdict.reasons[0].row, verdict.defect) == (3, Defect.NOT_FINITE)
    big[3, 5] = 0
    assert judge(tmp_path, corpus.saved({"big": big}), contract).samples == 5


def test_rows_without_elements(tmp_path: Path) -> None:
    """Rows that hold nothing sum to zero; rules about rows must see them although there is no data."""

    def contract(total: float) -> Contract:
        rules = {"arrays": {"a": {"dtype": "<f4", "shape": ["N", 0], "row_sum": total}}, "min_samples": 0}
        return Contract.from_mapping(rules)

    rows, none = (
        corpus.saved({"a": np.zeros((3, 0), np.float32)}),
        corpus.saved({"a": np.zeros((0, 0), np.float32)}),
    )
    assert judge(tmp_path, rows, contract(1)).defect is Defect.ROW_SUM
    assert judge(tmp_path, rows, contract(0)).samples == 3
    assert judge(tmp_path, none, contract(1)).samples == 0


def test_optional_mask_is_needed_with_its_array(tmp_path: Path) -> None:
    """Weights pass unchecked because the mask that judges them was left out."""
    table = {"dtype": "<f4", "shape": ["N", 7], "required": False}
    arrays = {"values": {"dtype": "<f4", "shape": ["N"]}, "p": table | {"zero_where_not": "m"}, "m": table}
    contract = Contract.from_mapping({"arrays": arrays})
    values, weights = np.zeros(2, np.float32), np.ones((2, 7), np.float32)
    verdict = judge(tmp_path, corpus.saved({"values": values, "p": weights}), contract)
    assert [(reason.defect, reason.member) for reason in verdict.reasons] == [(Defect.MISSING_ARRAY, "m.npy")]
    assert judge(tmp_path, corpus.saved({"values": values, "m": weights}), contract).state is State.OK
    assert judge(tmp_path, corpus.saved({"values": values}), contract).state is State.OK


def test_not_a_file(tmp_path: Path) -> None:
    """A folder or a pipe makes the validator hang or raise."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    for path in (tmp_path, pipe):
        verdict = validate(path, corpus.CONTRACT)
        assert (verdict.state, verdict.defect) == (State.BAD, Defect.NOT_A_FILE)


@pytest.mark.parametrize("name", ["gone.npz", "nul\0.npz", "x" * 300])
def test_what_cannot_be_opened_is_unknown(name: str, tmp_path: Path) -> None:
    """A file that could not be looked at is called bad (and deleted) or good (and trained on)."""
    verdict = validate(tmp_path / name, corpus.CONTRACT)
    assert (verdict.state, verdict.defect, verdict.bytes) == (State.UNKNOWN, Defect.UNREADABLE, None)


@pytest.mark.parametrize("call", ["pread", "preadv"])
@pytest.mark.parametrize("skip", [0, 2])
def test_read_errors_are_unknown(
    call: str, skip: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk error counts against the node that made the file."""
    real = getattr(os, call)
    calls = iter(range(10_000))

    def failing(*arguments: object) -> object:
        if next(calls) >= skip:
            raise OSError(5, "Input/output error")
        return real(*arguments)

    path = tmp_path / "shard.npz"
    path.write_bytes(corpus.saved(corpus.arrays(), compressed=True))
    monkeypatch.setattr(os, call, failing)
    verdict = validate(path, corpus.CONTRACT)
    assert (verdict.state, verdict.defect) == (State.UNKNOWN, Defect.UNREADABLE)
    assert verdict.bytes == path.stat().st_size


@pytest.mark.parametrize("call", ["pread", "preadv"])
@pytest.mark.parametrize("change", ["truncate", "append", "touch"])
def test_a_file_that_changes_is_unknown(
    call: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is still being written, or swapped in place, gets a verdict that is no longer true."""
    path = tmp_path / "shard.npz"
    path.write_bytes(corpus.saved(corpus.arrays(), compressed=True))
    real = getattr(os, call)

    def changing(*arguments: object) -> object:
        if change == "truncate":
            os.truncate(path, 10)
        elif change == "append":
            os.truncate(path, path.stat().st_size + 1)
        else:
            os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
        return real(*arguments)

    monkeypatch.setattr(os, call, changing)
    verdict = validate(path, corpus.CONTRACT)
    assert (verdict.state, verdict.defect) == (State.UNKNOWN, Defect.CHANGED)


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that delivers less than asked for, as network file systems do, is taken for the end."""
    shortener = random.Random(1)
    pread, preadv = os.pread, os.preadv
    monkeypatch.setattr(os, "pread", lambda fd, n, at: pread(fd, shortener.randint(1, n), at))
    monkeypatch.setattr(
        os, "preadv", lambda fd, to, at: preadv(fd, [to[0][: shortener.randint(1, len(to[0]))]], at)
    )
    for compressed in (False, True):
        verdict = judge(tmp_path, corpus.saved(corpus.arrays(300), compressed=compressed))
        assert (verdict.state, verdict.samples) == (State.OK, 300)
