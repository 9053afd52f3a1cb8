"""Settings: precedence, origins, refusals that name file, key, cause and remedy, and the example that `init` writes."""

from __future__ import annotations

import contextlib
import copy
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gamekeeper.core.errors import SettingsError
from gamekeeper.settings import Settings, Timings, example, load, resolve
from gamekeeper.settings.example_file import example_line

LINE = tomllib.loads(example_line())


def settings(
    document: dict[str, object] | None = None,
    environment: dict[str, str] | None = None,
    flags: dict[str, object] | None = None,
) -> Settings:
    return resolve(document or {}, source="g.toml", environment=environment or {}, flags=flags or {})


def refused(document: dict[str, object] | None = None, **more: dict[str, str]) -> str:
    with pytest.raises(SettingsError) as error:
        settings(document, **more)  # type: ignore[arg-type]
    assert error.value.remedy, "an error without a remedy"
    assert error.value.exit_code == 2
    return f"{error.value.message} | {error.value.remedy}"


def line_with(change: Callable[[dict[str, dict[str, object]]], None]) -> dict[str, object]:
    document = copy.deepcopy(LINE)
    change(document["lines"]["mygame"])
    return document


# --- precedence and origins


def test_flags_win_over_variables_over_the_file_over_defaults(tmp_path: Path) -> None:
    """A setting could be taken from the wrong place."""
    file = tmp_path / "g.toml"
    file.write_text("[coordinator]\nport = 1\nlease_s = 11\n[agent]\nslots = 1\n")
    found = load(
        file,
        environment={"GAMEKEEPER_COORDINATOR__PORT": "2", "GAMEKEEPER_AGENT__SLOTS": "2", "PATH": "/bin"},
        flags={"coordinator.port": 3, "agent.slots": None, "data_dir": tmp_path / "d"},
    )
    assert (found.coordinator.port, found.agent.slots, found.coordinator.lease_s) == (3, 2, 11.0)
    assert found.data_dir == tmp_path / "d"
    assert [found.origin(f"coordinator.{key}") for key in ("port", "lease_s", "host")] == [
        "--port", f"{file}:3", "default",
    ]  # fmt: skip
    assert found.origin("agent.slots") == "GAMEKEEPER_AGENT__SLOTS"


def test_a_relative_data_dir_is_the_files(tmp_path: Path) -> None:
    """The same file could mean another folder from another place."""
    file = tmp_path / "g.toml"
    file.write_text('data_dir = "here"\n')
    assert load(file, environment={}).data_dir == tmp_path / "here"
    assert load(file, environment={"GAMEKEEPER_DATA_DIR": "there"}).data_dir == Path("there")


def test_a_text_in_the_environment_stays_text() -> None:
    """A folder called 2024 could be refused as a number."""
    assert settings(environment={"GAMEKEEPER_DATA_DIR": "2024"}).data_dir == Path("2024")
    assert settings(environment={"GAMEKEEPER_COORDINATOR__HOST": "true"}).coordinator.host == "true"


def test_a_variable_reaches_into_a_line() -> None:
    """Only part of the document could be set from outside."""
    found = settings(copy.deepcopy(LINE), {"GAMEKEEPER_LINES__MYGAME__PROMOTION__ELO1": "80.5"})
    assert found.lines["mygame"].elo1 == 80.5


def test_variables_of_other_parts_are_left_alone() -> None:
    """The address variable of the command line could stop the coordinator from starting."""
    settings(environment={"GAMEKEEPER_URL": "http://x", "GAMEKEEPER_JOB_DIR": "/j", "GAMEKEEPER_RUN": "r"})


# --- refusals


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"coordinatr": {}}, ["g.toml", "coordinatr", "did you mean 'coordinator'"]),
        ({"coordinator": {"prot": 1}}, ["g.toml", "coordinator.prot", "did you mean 'port'"]),
        ({"coordinator": {"zzz": 1}}, ["coordinator.zzz", "known keys here: host, lease_s, port"]),
        ({"coordinator": {"port": "8000"}}, ["coordinator.port = '8000'"]),
        ({"coordinator": {"port": 70000}}, ["coordinator.port = 70000"]),
        ({"coordinator": {"lease_s": float("nan")}}, ["coordinator.lease_s = nan"]),
        ({"coordinator": 5}, ["coordinator"]),
        ({"lines": {"Bad Name": {}}}, ["Bad Name"]),
        ({"lines": {"x": {}}}, ["lines.x.found is missing", "and 7 more"]),
        ({"agent": {"slots": True}}, ["agent.slots"]),
    ],
)
def test_what_cannot_be_used_is_named(document: dict[str, object], words: list[str]) -> None:
    """A typing error could be ignored, or be reported without saying where it is."""
    told = refused(document)
    assert all(word in told for word in words), told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda line: line["promotion"].update(elo0=60.0),
            ["elo0 = 60.0 is not below", "elo1 = 50.0"],
        ),
        (lambda line: line["promotion"].update(alpha=0.5), ["promotion.alpha"]),
        (lambda line: line["promotion"].update(beta=0.0), ["promotion.beta"]),
        (lambda line: line["promotion"].update(max_pairs=10), ["pairs_per_job = 50 exceeds"]),
        (lambda line: line["training"].update(window_samples=5), ["min_new_samples = 10000 exceeds"]),
        (lambda line: line["evaluation"].update(pairs_per_jop=5), ["pairs_per_jop", "'pairs_per_job'"]),
        (lambda line: line["selfplay"].update(comand=["x"]), ["comand", "did you mean 'command'"]),
        (lambda line: line["contract"].update(arrays={}), ["lines.mygame.contract", "arrays"]),
        (lambda line: line["contract"].update(games_fom="x"), ["lines.mygame.contract", "games_f"]),
        (
            lambda line: (
                line["promotion"].update(max_pairs=2, elo1=1.0),
                line["evaluation"].update(pairs_per_job=1),
            ),
            ["could never turn", "max_pairs"],
        ),
    ],
)
def test_contradictions_in_a_line_are_refused(
    change: Callable[[dict[str, dict[str, object]]], None], words: list[str]
) -> None:
    """A loop that can never promote could be started and only show it after hours."""
    told = refused(line_with(change))
    assert all(word in told for word in ["g.toml", *words]), told


def test_an_unknown_variable_is_refused() -> None:
    """A misspelt variable could be ignored."""
    told = refused(environment={"GAMEKEEPER_COORDINATOR__PRT": "1"})
    assert "GAMEKEEPER_COORDINATOR__PRT" in told
    assert "GAMEKEEPER_COORDINATOR__PORT" in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = ", "not valid TOML"),
        (b"\xff", "not valid TOML"),
        (b"x" * (1 << 21), "larger"),
        (None, "does not exist"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    """A broken file could end in a traceback."""
    file = tmp_path / "g.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=words) as error:
        load(file, environment={})
    assert str(file) in error.value.message


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*LINE["lines"]["mygame"], "lines", "x", "command", "wanted"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(
    key=st.sampled_from(["coordinator", "agent", "artifacts", "lines", "seed", "data_dir", "odd"]),
    value=values,
)
def test_any_document_is_accepted_or_refused_in_words(key: str, value: object) -> None:
    """A strange document could end in a traceback."""
    with contextlib.suppress(SettingsError):
        assert settings({key: value}).hash


# --- timings, hash, example


@given(lease_s=st.floats(min_value=1.0, max_value=3600.0))
def test_every_allowed_lease_leaves_room_for_three_beats(lease_s: float) -> None:
    """A short lease could end between two beats of a healthy agent."""
    timings = settings({"coordinator": {"lease_s": lease_s}}).timings
    timings.check()
    assert 3 * timings.beat_s < timings.lease_s - timings.margin_s


def test_timings_without_room_are_refused() -> None:
    """The order of the durations could be broken by a change of one of them."""
    with pytest.raises(SettingsError):
        Timings(lease_s=10, beat_s=3.3, margin_s=1, reap_every_s=1).check()


def test_the_hash_follows_what_governs_the_loop_and_nothing_else() -> None:
    """Agents could take a moved port for other settings, or miss a changed bound."""
    plain = settings(copy.deepcopy(LINE)).hash
    assert settings(copy.deepcopy(LINE), flags={"coordinator.port": 1, "data_dir": "x"}).hash == plain
    assert settings(copy.deepcopy(LINE), flags={"seed": 1}).hash != plain
    assert settings(line_with(lambda line: line["promotion"].update(alpha=0.04))).hash != plain


def test_the_example_is_accepted_and_shows_every_key() -> None:
    """`init` could write a file that is refused, or that hides a setting."""
    text = example()
    assert settings(tomllib.loads(text)).lines == {}
    uncommented = "\n".join(
        line.removeprefix("# ")
        for line in text.splitlines()
        if " = " in line or line.removeprefix("# ").startswith("[")
    )
    for key in ("data_dir", "seed", "host", "port", "lease_s", "slots", "url", "max_bytes", "min_free_bytes"):
        assert f"{key} = " in uncommented
    found = settings(tomllib.loads(example(line_document=example_line())))
    assert found.lines["mygame"].selfplay_games == 256
    assert found.contracts["mygame"].games_from == "game"
    assert all(len(line) <= 120 for line in text.splitlines())
