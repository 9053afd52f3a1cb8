"""`gamekeeper config`: what is in force and why, what is wrong, and the schema that is shipped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import gamekeeper
from gamekeeper.cli import main
from gamekeeper.cli.launch import children
from gamekeeper.settings import example, load
from gamekeeper.settings.example_file import example_line
from gamekeeper.settings.json_schema import schema, shipped_text

SECRET = "postgresql://u:geheim@h/d"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder and no variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("GAMEKEEPER_CONFIG", "GAMEKEEPER_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    code = main.entry(["config", *words])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def table(text: str) -> dict[str, list[str]]:
    """Key and columns of a table without blanks in its cells."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_show_tells_each_value_and_where_it_was_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person could look for a value in the wrong place."""
    Path("gamekeeper.toml").write_text("# c\nseed = 3\n[coordinator]\nport = 1\n")
    monkeypatch.setenv("GAMEKEEPER_AGENT__SLOTS", "7")
    code, out, err = run(capsys, "show", "--origin", "--set", "coordinator.lease_s=20", "--data-dir", "d")
    assert (code, err) == (0, "")
    rows = table(out)
    assert rows["seed"] == ["3", "gamekeeper.toml:2"]
    assert rows["coordinator.port"] == ["1", "gamekeeper.toml:4"]
    assert rows["agent.slots"] == ["7", "GAMEKEEPER_AGENT__SLOTS"]
    assert rows["coordinator.lease_s"] == ["20.0", "--set", "coordinator.lease_s"]
    assert rows["data_dir"] == ['"d"', "--data-dir"]
    assert rows["coordinator.host"] == ['"127.0.0.1"', "default"]
    assert rows["timings.beat_s"][0] == "5.0"


def test_show_as_json_and_of_some_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """A program could not read the settings, or had to take all of them."""
    code, out, _ = run(capsys, "show", "store.url", "timings", "--json", "--set", f"store.url={SECRET}")
    assert code == 0
    found = json.loads(out)
    assert found["file"] is None
    assert [row["key"] for row in found["settings"]][:2] == ["store.url", "timings.beat_s"]
    assert found["settings"][0] == {
        "key": "store.url", "value": "postgresql://u:***@h/d", "secret": True, "derived_from": None,
        "origin": {"layer": "flag", "place": "--set store.url"},
    }  # fmt: skip
    assert found["settings"][1]["derived_from"] == "coordinator.lease_s"
    assert "geheim" not in out


def test_show_hash_follows_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """Two machines could not be compared."""
    plain = run(capsys, "show", "--hash")[1].strip()
    assert plain == load(None, environment={}).hash
    assert run(capsys, "show", "--hash", "--set", "seed=1")[1].strip() != plain
    assert json.loads(run(capsys, "show", "--hash", "--json")[1]) == {"hash": plain}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("show", "coordinator.prot"), "did you mean coordinator.port"),
        (("show", "a b"), "is no settings key"),
        (("show", "--config", "none.toml"), "none.toml does not exist"),
        (("show", "--set", "seed"), "not of the form KEY=VALUE"),
        (("show", "--set", "seed=x"), "--set seed: seed = 'x' cannot be used"),
        (("check", "none.toml"), "none.toml does not exist"),
        (("check", "."), "is a folder"),
    ],
)
def test_wrong_questions_are_usage_errors(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    """A slip could end in a traceback, or in an answer to another question."""
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert told in err
    assert "hint: " in err


def test_check_lists_every_problem_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A file could be mended only one refusal at a time."""
    Path("g.toml").write_text("sed = 1\n[agent]\nslots = '2'\n[retention]\nfinished_jobs_days = 0\n")
    code, out, err = run(capsys, "check", "g.toml")
    assert (code, err) == (1, "")
    errors = [line for line in out.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors] == ["g.toml:3", "g.toml:5", "g.toml:1"]
    assert out.endswith("g.toml: 3 problems\n")
    code, out, _ = run(capsys, "check", "g.toml", "--json")
    found = json.loads(out)
    assert code == 1
    assert (found["sound"], found["hash"], found["warnings"]) == (False, None, [])
    assert {problem["key"] for problem in found["problems"]} == {
        "sed",
        "agent.slots",
        "retention.finished_jobs_days",
    }


@pytest.mark.parametrize("content", [b"a = ", b"\xff\x00", b"x" * (2 << 20), b"a = " + b"[" * 9999])
def test_check_of_what_is_no_toml_is_a_problem(capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    """A broken file could pass for a usage error, or end in a traceback."""
    Path("g.toml").write_bytes(content)
    code, out, err = run(capsys, "check", "g.toml")
    assert (code, err) == (1, "")
    assert out.startswith("error: g.toml")
    assert out.endswith("g.toml: 1 problem\n")


def test_check_warns_and_is_strict_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """A suspicion could stop a start, or never be heard."""
    Path("g.toml").write_text(f"[store]\nurl = '{SECRET}'\n" + example_line())
    code, out, _ = run(capsys, "check", "g.toml")
    assert code == 0
    assert out.startswith("warning: g.toml:2: store.url: a password")
    assert out.endswith("g.toml: 1 warning\n")
    assert "geheim" not in out
    assert run(capsys, "check", "g.toml", "--strict")[0] == 1
    assert run(capsys, "check", "g.toml", "--strict", "--set", "store.url=")[0] == 1, (
        "an override is told, too"
    )
    Path("g.toml").write_text(example_line())
    assert run(capsys, "check", "g.toml", "--strict") == (0, "g.toml: sound\n", "")


def test_the_shipped_schema_is_that_of_the_types(capsys: pytest.CaptureFixture[str]) -> None:
    """An editor would refuse a key that is known, or know one that is refused."""
    code, out, _ = run(capsys, "schema")
    assert (code, out) == (0, shipped_text())
    assert json.loads(out) == schema()
    assert set(json.loads(out)["properties"]) >= {"lines", "kinds", "store", "data_dir"}
    assert json.loads(out)["additionalProperties"] is False


def test_the_example_uncommented_is_sound(tmp_path: Path) -> None:
    """A key of the example could be refused once its `#` is gone."""
    text = "\n".join(re.findall(r"^(?:# )*(\w+ = .*|\[[\w.]+\])$", example(), re.MULTILINE))
    document = tomllib.loads(text)
    (tmp_path / "g.toml").write_text(text)
    found = load(tmp_path / "g.toml", environment={})
    assert found.kinds["analysis"].progress_unit == "boards"
    assert set(document) >= {"store", "retention", "admission", "distribution", "job_parking", "agent"}


def test_flags_reach_the_child_processes(tmp_path: Path) -> None:
    """`up` could run its parts under other settings than it was told."""
    for child in children(tmp_path / "g.toml", tmp_path, overrides=["seed=1", "agent.slots=2"]):
        words = list(child.command)
        assert [words[i + 1] for i, word in enumerate(words) if word == "--set"] == [
            "seed=1",
            "agent.slots=2",
        ]


def test_asking_for_the_data_dir_does_not_load_the_schema(tmp_path: Path) -> None:
    """`status` would be slow to start for one key."""
    (tmp_path / "gamekeeper.toml").write_text('data_dir = "there"\n')
    program = (
        "import sys; from gamekeeper.cli.options import chosen_data_dir; print(chosen_data_dir(None));"
        "print([name for name in ('pydantic', 'blake3', 'numpy', 'gamekeeper.settings.schema') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(gamekeeper.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stdout.split("\n")[:2] == ["there", "[]"], done.stderr
