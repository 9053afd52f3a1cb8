"""Checking settings: every problem is named, every crossed threshold refused, and the hash is canonical."""

from __future__ import annotations

import copy
import random
import tomllib
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gamekeeper.agent.pacing import Lease
from gamekeeper.core.errors import SettingsError
from gamekeeper.core.receipts import BUILT_IN_KINDS, FieldType, JobKind, ReceiptField
from gamekeeper.policy.work_distributor import Limits
from gamekeeper.settings import load, look, resolve
from gamekeeper.settings.findings import Findings
from gamekeeper.settings.keys import spell
from gamekeeper.settings.loading import Settings
from gamekeeper.settings.rules import ORDERS, Order
from gamekeeper.settings.timings import Timings
from gamekeeper.settings.toml_text import document_text
from gamekeeper.settings.tree import ANY, Key, known_keys
from gamekeeper.store.decisions import KEPT
from tests.thoroughness import examples
from tests.unit.settings.documents import LINE, Table, documents, leaves, put, tables, values, whole


def checked(document: Table) -> Settings:
    return resolve(document, source="g.toml", environment={}, flags={})


def found_in(tmp_path: Path, document: Table | str) -> Findings:
    file = tmp_path / "g.toml"
    file.write_text(document if isinstance(document, str) else document_text(document), "utf-8")
    return look(file, environment={})


@settings(examples(40))
@given(document=documents())
def test_any_valid_document_survives_being_written_and_read(document: Table) -> None:
    """What a program writes could be read as something else."""
    first = checked(document)
    again = checked(tomllib.loads(document_text(document)))
    assert again.hash == first.hash
    assert again.document == first.document
    dumped = first.document.model_dump(exclude_none=True)
    assert checked(tomllib.loads(document_text(dumped))).document == first.document


@settings(examples(80))
@given(document=documents(), data=st.data())
def test_an_unknown_key_anywhere_is_an_error_that_names_it(document: Table, data: st.DataObject) -> None:
    """A typing error could be ignored, wherever it is."""
    at, table = data.draw(
        st.sampled_from([one for one in tables(document) if one[0] not in {("lines",), ("kinds",)}])
    )
    name = data.draw(st.text(alphabet="abcdefghijklmnopqrstuvwxyz_ .", min_size=1, max_size=12))
    assume(name not in table and not any(key.path == (*at, name) for key in leaves()))
    assume(not known_keys(at) or name not in known_keys(at))
    table[name] = data.draw(st.integers() | st.text(max_size=3) | st.just({"a": 1}))
    with pytest.raises(SettingsError) as error:
        checked(document)
    assert error.value.message == f"g.toml: unknown key {spell((*at, name))}"
    assert error.value.remedy


@pytest.mark.parametrize("order", ORDERS, ids=[".".join(order.low) for order in ORDERS])
@pytest.mark.parametrize("equal", [False, True])
def test_crossed_thresholds_are_refused(order: Order, equal: bool, tmp_path: Path) -> None:
    """A rule could be declared and not be kept, or name one key only."""
    low, high = (
        tuple("mygame" if part == ANY else part for part in path) for path in (order.low, order.high)
    )
    keys = {key.path: key for key in leaves()}
    small, large = values(keys[low])[0], values(keys[high])[0]
    assert isinstance(small, int | float)
    assert isinstance(large, int | float)
    checked(put(put(whole(), low, small), high, large))
    crossed = put(put(whole(), high, small), low, small if equal else small + 1)
    told = [one for one in found_in(tmp_path, crossed).problems if order.why in one.message]
    if equal and not order.strict:
        assert told == []
        return
    (problem,) = told
    assert problem.message.startswith(f"{spell(low)} = ")
    assert f" {spell(high)} = {small} ({tmp_path / 'g.toml'}:" in problem.message
    assert problem.place.startswith(str(tmp_path / "g.toml:"))
    assert (problem.key, problem.remedy) == (spell(low), order.remedy)
    with pytest.raises(SettingsError):
        checked(crossed)


def test_a_threshold_crossed_with_a_default_is_refused() -> None:
    """Half a rule could be checked: the half that was written down."""
    with pytest.raises(SettingsError, match=r"exclusion_first_s = 90000 exceeds .* = 21600.0 \(default\)"):
        checked({"job_parking": {"exclusion_first_s": 90000}})
    with pytest.raises(SettingsError, match=r"600.0 \(default\) exceeds job_parking.exclusion_longest_s = 5"):
        checked({"job_parking": {"exclusion_longest_s": 5}})


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    """A person would mend a file one refusal at a time."""
    document = put(put(whole(), ("coordinator", "prot"), 1), ("agent", "slots"), "2")
    put(document, ("job_parking",), {"exclusion_first_s": 10, "exclusion_longest_s": 5})
    put(document, ("lines", "mygame", "contract", "games_fom"), "x")
    put(document, ("lines", "mygame", "training", "window_samples"), 5)
    put(document, ("store", "passfile"), "p")
    found = found_in(tmp_path, document)
    told = [problem.message for problem in found.problems]
    for words in (
        "coordinator.prot",
        "agent.slots",
        "exclusion_first_s",
        "games_fom",
        "window_samples",
        "passfile",
    ):
        assert sum(words in one for one in told) == 1, told
    assert len(told) == 6
    assert all(problem.place.startswith(str(tmp_path / "g.toml:")) for problem in found.problems), (
        found.problems
    )
    with pytest.raises(SettingsError, match=r"\(and 5 more; `gamekeeper config check` lists them\)"):
        found.usable()
    assert found.warnings() == ()


def test_the_number_of_problems_told_is_bounded(tmp_path: Path) -> None:
    """A wrong file could fill a terminal, or the memory."""
    found = found_in(tmp_path, "".join(f"a{number} = 1\n" for number in range(5000)))
    assert len(found.problems) == 200


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"coordinator": {"host": "0.0.0.0"}}, "can be reached from other machines"),
        ({"coordinator": {"lease_s": 2}}, "a pause of 2 s"),
        ({"job_parking": {"exclusion_first_s": 3}}, "less time than it takes to notice"),
        ({"distribution": {"line_weights": {"nogame": 2}}}, "no line is called nogame"),
        ({"distribution": {"weights": {"tain": 2}}}, "no kind of jobs is called tain"),
        ({"distribution": {"minimums": {"mygame/evaluat/rating": 2}}}, "no kind of jobs is called evaluat"),
        ({"distribution": {"minimums": {"nogame": 2}}}, "no line is called nogame"),
        ({"store": {"url": "postgresql://u:geheim@h/d"}}, "a password stands where others may read it"),
        ({"store": {"url": "postgresql://u@h/d?password=geheim"}}, "a password stands where others may read it"),
    ],
)  # fmt: skip
def test_what_is_suspicious_is_told_and_accepted(tmp_path: Path, document: Table, words: str) -> None:
    """A slip that is legal could be found only by its effects."""
    found = found_in(tmp_path, {**whole(), **document})
    assert not found.problems
    (warning,) = found.warnings()
    assert words in warning.message
    assert warning.place.startswith(str(tmp_path / "g.toml:"))
    assert warning.remedy
    assert "geheim" not in str(warning)


def test_sound_settings_have_no_warnings_and_no_line_is_one(tmp_path: Path) -> None:
    """Warnings that are always there are not read."""
    assert found_in(tmp_path, whole()).warnings() == ()
    assert [one.key for one in found_in(tmp_path, "").warnings()] == ["lines"]


def test_a_password_and_a_passfile_exclude_each_other() -> None:
    """Which of two passwords counts could depend on the database driver."""
    document: Table = {"store": {"url": "postgresql://u:geheim@h/d", "passfile": "p"}}
    with pytest.raises(SettingsError, match="holds a password, too") as error:
        checked(document)
    assert "geheim" not in error.value.message
    fine = resolve(
        {"store": {"url": "postgresql://u@h/d", "passfile": "p"}},
        folder=Path("conf"),
        environment={},
        flags={},
    )
    assert fine.store.passfile == "conf/p"


# --- the hash


def shuffled(value: object, rng: random.Random) -> object:
    """`value` with the keys of every table in another order."""
    if not isinstance(value, dict):
        return value
    keys = list(value)
    rng.shuffle(keys)
    return {key: shuffled(value[key], rng) for key in keys}


@settings(examples(25))
@given(document=documents(), seed=st.integers(0, 99))
def test_the_order_of_keys_the_layer_and_spelled_out_defaults_do_not_change_the_hash(
    document: Table, seed: int
) -> None:
    """Equal settings could be taken for different ones, and every machine be reported."""
    plain = checked(copy.deepcopy(document))
    other = shuffled(copy.deepcopy(document), random.Random(seed))
    assert isinstance(other, dict)
    assert checked(other).hash == plain.hash
    assert checked(plain.document.model_dump(exclude_none=True)).hash == plain.hash
    lease_s = plain.coordinator.lease_s
    by_flag = resolve(document, environment={}, flags={}, overrides=[f"coordinator.lease_s={lease_s:g}"])
    assert by_flag.hash == plain.hash


NOT_GOVERNING = {"data_dir", "coordinator", "store", "agent"}


@pytest.mark.parametrize("key", leaves(), ids=[spell(key.path) for key in leaves()])
def test_the_hash_follows_every_key_that_governs_and_no_other(key: Key) -> None:
    """A machine under other bounds could look like all others, or a moved port like other bounds."""
    if key.path[-1] == "contract":
        changed = put(whole(), (*key.path, "samples_dimension"), "N")
        put(changed, (*key.path, "arrays", "policy", "finite"), False)
    else:
        changed = put(whole(), key.path, values(key)[0])
    governs = key.path[0] not in NOT_GOVERNING or key.path == ("coordinator", "lease_s")
    assert (checked(changed).hash != checked(whole()).hash) is governs


def test_whole_numbers_and_zeros_in_any_spelling_mean_the_same() -> None:
    """`elo0 = 0`, `0.0` and `-0.0` could be three settings."""
    path = ("lines", "mygame", "promotion", "elo0")
    assert len({checked(put(whole(), path, zero)).hash for zero in (0, 0.0, -0.0)}) == 1


# --- what the settings mean


def test_kinds_of_jobs_become_what_receipts_are_judged_by() -> None:
    """A declared kind could be judged by another schema, or take the place of a built-in one."""
    declared = {"own": {"progress_unit": "boards", "receipt": {"boards": "count", "result": "hashes"}}}
    kinds = checked({"kinds": declared}).kinds
    assert set(kinds) == {*BUILT_IN_KINDS, "own"}
    assert kinds["own"] == JobKind(
        "own", "boards", (ReceiptField("boards", FieldType.COUNT), ReceiptField("result", FieldType.HASHES))
    )
    assert all(kinds[name] is kind for name, kind in BUILT_IN_KINDS.items())


def test_defaults_are_those_of_the_parts_that_use_them() -> None:
    """The settings could promise bounds that nobody keeps."""
    plain = checked({})
    assert plain.distribution.to_limits() == Limits()
    given = checked(
        {"distribution": {"minimums": {"mygame": 2}, "weights": {"train": 2}}}
    ).distribution.to_limits()
    assert given == Limits(minimums={"mygame": 2}, weights={**Limits().weights, "train": 2.0})
    assert plain.retention.decisions_max == KEPT


def test_declared_devices_are_known_and_none_are_unknown() -> None:
    """A machine whose devices nobody declared could count as one without any."""
    assert checked({}).agent.declared_gpus() is None
    gpus = checked(
        {"agent": {"gpus": [{"name": "A"}, {"name": "B", "memory_bytes": 5}]}}
    ).agent.declared_gpus()
    assert gpus is not None
    assert [(gpu.name, gpu.memory_bytes) for gpu in gpus] == [("A", None), ("B", 5)]


@given(lease_s=st.floats(1.0, 3600.0))
def test_derived_timings_are_those_the_agent_keeps(lease_s: float) -> None:
    """`config show` could tell other durations than the agents keep to."""
    timings = Timings.of(lease_s)
    lease = Lease("i", lease_s, expires_at=10_000.0)
    assert lease.beat_every_s == pytest.approx(timings.beat_s)
    assert 10_000.0 - lease.lost_at == pytest.approx(timings.margin_s)
    assert timings.self_stop_s == pytest.approx(lease_s - timings.margin_s)


def test_an_unset_data_dir_lies_beside_the_file_too(tmp_path: Path) -> None:
    """The default could mean another folder from another place."""
    (tmp_path / "g.toml").write_text("seed = 1\n")
    assert load(tmp_path / "g.toml", environment={}).data_dir == tmp_path / "gamekeeper-data"
    assert load(None, environment={}).data_dir == Path("gamekeeper-data")


def test_parameters_must_be_what_json_can_say() -> None:
    """A job could be handed a file of parameters that its language cannot read."""
    for odd in (float("nan"), [float("inf")], {"a": {"b": float("-inf")}}, tomllib.loads("a = 07:32:00")):
        document = copy.deepcopy(LINE)
        document["lines"]["mygame"]["train"]["parameters"] = {"x": odd}
        with pytest.raises(SettingsError, match=r"lines.mygame.train.parameters"):
            checked(document)
