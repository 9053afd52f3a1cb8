"""The layers of the settings: for every key, the stronger one wins, and the origin says which it was."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gamekeeper.core.errors import SettingsError
from gamekeeper.settings import load, look
from gamekeeper.settings.keys import Layer, spell
from gamekeeper.settings.layers import literal, variable_of
from gamekeeper.settings.loading import Settings
from gamekeeper.settings.overview import Row, chosen, rows
from gamekeeper.settings.toml_text import document_text, to_toml
from gamekeeper.settings.tree import Key, instances, value_at
from tests.thoroughness import examples
from tests.unit.settings.documents import leaves, put, refusal, values, whole

LEAVES = [key for key in leaves() if key.path[-1] != "contract"]
NAMES = [spell(key.path) for key in LEAVES]


def rows_at(found: Settings, key: Key) -> list[Row]:
    return chosen(rows(found), [spell(key.path)])


def text_of(key: Key, value: object) -> str:
    """The value as it is written in a variable: texts without quotes."""
    return str(value) if key.is_text else to_toml(value)


def in_force(found: Settings, key: Key) -> object:
    if key.path == ("data_dir",):
        return str(found.data_dir)
    return value_at(found.document.model_dump(exclude_none=True), key.path)


def merged(key: Key, value: object) -> object:
    """A table with keys of the user's is laid over the one below it."""
    if key.path == ("distribution", "weights"):
        assert isinstance(value, dict)
        return {**key.default, **value}  # type: ignore[dict-item]
    return value


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "g.toml"


def line_of(file: Path, key: Key) -> int:
    """Where the key stands in a document written by `document_text`: in a table of its own, or as a plain value."""
    lines = file.read_text("utf-8").split("\n")
    table = f"[{spell(key.path[:-1])}]"
    start = lines.index(table) if len(key.path) > 1 and table in lines else 0
    for number, line in enumerate(lines[start:], start + 1):
        if line.startswith((f"{key.path[-1]} = ", f"[{spell(key.path)}]")):
            return number
    raise AssertionError(f"{spell(key.path)} is not in the file")


@pytest.mark.parametrize("key", LEAVES, ids=NAMES)
def test_each_layer_wins_over_those_below_it(key: Key, file: Path) -> None:
    """A setting could be taken from the wrong place, or its origin be told wrongly."""
    first, second = values(key)
    file.write_text(document_text(whole()), "utf-8")
    plain = load(file, environment={})
    file.write_text(document_text(put(whole(), key.path, copy.deepcopy(first))), "utf-8")

    of_file = load(file, environment={})
    expected = str(file.parent / str(first)) if key.path == ("data_dir",) else merged(key, first)
    assert in_force(of_file, key) == expected
    if not isinstance(first, dict):
        (row,) = rows_at(of_file, key)
        assert (row.origin.layer, row.origin.place) == (Layer.FILE, f"{file}:{line_of(file, key)}")
    if not key.info.is_required():
        assert {row.origin.layer for row in rows_at(plain, key)} == {Layer.DEFAULT} or key.path[0] == "lines"

    variable = {variable_of(key.path): text_of(key, second)}
    of_variable = load(file, environment=variable)
    laid = {**first, **second} if isinstance(first, dict) and isinstance(second, dict) else second
    assert in_force(of_variable, key) == merged(key, laid)
    assert Layer.ENVIRONMENT in {row.origin.layer for row in rows_at(of_variable, key)}
    assert {row.origin.place for row in rows_at(of_variable, key)} & set(variable)

    of_flag = load(file, environment=variable, overrides=[f"{spell(key.path)}={text_of(key, first)}"])
    laid = {**laid, **first} if isinstance(laid, dict) and isinstance(first, dict) else first
    assert in_force(of_flag, key) == merged(key, laid)
    places = {row.origin.place for row in rows_at(of_flag, key)}
    assert f"--set {spell(key.path)}" in places


@pytest.mark.parametrize("key", LEAVES, ids=NAMES)
def test_a_wrong_value_is_refused_with_its_key_and_its_place(key: Key, file: Path) -> None:
    """A value could be converted, or the message could send its reader to the wrong line."""
    wrong = [{"no": ["such", "thing"]}, 1] if not key.is_text else {"no": "text"}
    file.write_text(document_text(whole()), "utf-8")
    if not key.is_text:
        for text in ("[[", "nan", "[[1], {a = 1}]"):
            variable = variable_of(key.path)
            with pytest.raises(SettingsError) as of_variable:
                load(file, environment={variable: text})
            assert of_variable.value.message.startswith(f"{variable}: {spell(key.path)}")
        with pytest.raises(SettingsError) as of_flag:
            load(file, environment={}, overrides=[f"{spell(key.path)}=[[]]"])
        assert of_flag.value.message.startswith(f"--set {spell(key.path)}: {spell(key.path)}")
    file.write_text(document_text(put(whole(), key.path, wrong)), "utf-8")
    with pytest.raises(SettingsError) as of_file:
        load(file, environment={})
    assert of_file.value.message.startswith(f"{file}:")
    assert spell(key.path) in of_file.value.message
    assert of_file.value.remedy


def test_every_key_is_shown_once(file: Path) -> None:
    """A setting could be in force and not be shown."""
    file.write_text(document_text(whole()), "utf-8")
    found = load(file, environment={})
    shown = [row.path for row in rows(found)]
    assert len(set(shown)) == len(shown)
    document = found.document.model_dump()
    for key in leaves():
        for path in instances(key.path, document):
            assert any(row[: len(path)] == path for row in shown), spell(path)


def test_values_that_a_stronger_layer_replaced_are_noted(file: Path) -> None:
    """A forgotten variable could silently win over the file for years."""
    file.write_text("[coordinator]\nport = 1\n", "utf-8")
    told = look(file, environment={"GAMEKEEPER_COORDINATOR__PORT": "2"}).warnings()
    (warning,) = [one for one in told if one.key == "coordinator.port"]
    assert warning.place == f"{file}:2"
    assert "GAMEKEEPER_COORDINATOR__PORT wins" in warning.message


def test_a_name_with_a_hyphen_can_be_meant_by_a_variable(file: Path) -> None:
    """No shell takes a hyphen in the name of a variable."""
    document = whole()
    document["lines"] = {"my-game": document["lines"]["mygame"]}  # type: ignore[index]
    file.write_text(document_text(document), "utf-8")
    found = load(file, environment={"GAMEKEEPER_LINES__MY_GAME__PROMOTION__ELO1": "80"})
    assert found.lines["my-game"].elo1 == 80.0


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"GAMEKEEPER_PORT": "1"}, ["GAMEKEEPER_PORT: unknown key port", "'GAMEKEEPER_COORDINATOR__PORT'"]),
        ({"GAMEKEEPER_AGENT_SLOTS": "1"}, ["unknown key agent_slots", "'GAMEKEEPER_AGENT__SLOTS'"]),
        ({"GAMEKEEPER_AGENT__SLOTZ": "1"}, ["GAMEKEEPER_AGENT__SLOTZ", "'GAMEKEEPER_AGENT__SLOTS'"]),
        ({"GAMEKEEPER_": "1"}, ["'GAMEKEEPER_' names no settings key", "two underscores"]),
        ({"GAMEKEEPER_AGENT____SLOTS": "1"}, ["names no settings key"]),
        ({"GAMEKEEPER_" + "A__" * 5000 + "A": "1"}, ["names no settings key"]),
        ({"GAMEKEEPER_DATA_DIR": "a\udc80"}, ["GAMEKEEPER_DATA_DIR", "not UTF-8"]),
        ({"GAMEKEEPER_DATA_DIR": "a\x00b"}, ["data_dir", "control character"]),
        ({"GAMEKEEPER_DATA_DIR": ""}, ["data_dir = ''", "at least 1 character"]),
        ({"GAMEKEEPER_SEED": "9" * 5000}, ["seed", "valid integer"]),
        ({"GAMEKEEPER_SEED": "1\nport = 2"}, ["seed"]),
        ({"GAMEKEEPER_AGENT": "[" * 100_000}, ["agent"]),
        ({"GAMEKEEPER_AGENT": "{" + "a." * 50_000 + "a = 1}"}, ["agent"]),
        ({"GAMEKEEPER_COORDINATOR": "7"}, ["coordinator = 7"]),
    ],
)  # fmt: skip
def test_variables_that_cannot_be_used(environment: dict[str, str], words: list[str]) -> None:
    """A misspelt variable could be ignored, or a strange one end in a traceback."""
    with pytest.raises(SettingsError) as error:
        load(None, environment=environment)
    told = f"{error.value.message} | {error.value.remedy}"
    assert all(word in told for word in words), told
    assert len(told) < 600


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("coordinator.lease_s", ["--set 'coordinator.lease_s' is not of the form KEY=VALUE"]),
        ("=5", ["KEY=VALUE"]),
        ("store..url=postgresql://u:geheim@h/d", ["KEY=VALUE"]),
        ("coordinator.leas_s=5", ["--set coordinator.leas_s: unknown key", "'--set coordinator.lease_s=…'"]),
        ("port=5", ["unknown key port", "--set coordinator.port=…"]),
        (".".join("a" * 40) + "=1", ["names no settings key"]),
        ("coordinator.port=70000", ["--set coordinator.port: coordinator.port = 70000 cannot be used"]),
    ],
)  # fmt: skip
def test_flags_that_cannot_be_used(override: str, words: list[str]) -> None:
    """A misspelt flag could be ignored, or show a secret."""
    with pytest.raises(SettingsError) as error:
        load(None, environment={}, overrides=[override])
    told = f"{error.value.message} | {error.value.remedy}"
    assert all(word in told for word in words), told
    assert "geheim" not in told


def test_the_last_flag_wins_and_keys_may_be_quoted() -> None:
    """`--set` could not be repeated, or not name what needs quotes."""
    found = load(
        None,
        environment={},
        overrides=["coordinator.port=1", "coordinator.port = 2", 'distribution.weights."evaluate/rating"=3'],
    )
    assert found.coordinator.port == 2
    assert found.distribution.weights["evaluate/rating"] == 3.0
    assert found.distribution.weights["train"] == 4.0


@settings(examples(200))
@given(text=st.text(max_size=40), name=st.text(alphabet="ABCDEFG_.", max_size=20))
def test_any_variable_and_any_flag_is_used_or_refused_in_words(text: str, name: str) -> None:
    """A strange environment could end in a traceback."""
    for environment, overrides in (
        ({f"GAMEKEEPER_{name}": text}, []),
        ({"GAMEKEEPER_AGENT": text}, []),
        ({}, [text]),
        ({}, [f"agent.{name}={text}"]),
    ):
        error = refusal(partial(load, None, environment=environment, overrides=overrides))
        assert error is None or error.remedy


@pytest.mark.parametrize("text", ["true", "True", "TRUE"])
def test_a_truth_value_may_be_written_in_any_case(text: str) -> None:
    """Half of all people write True, and a text would be refused."""
    assert literal(("agent", "ephemeral"), text) is True
