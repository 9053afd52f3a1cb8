"""The reading commands and `stop`, from the command line to the coordinator's answer and back."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from gamekeeper.cli.main import entry
from gamekeeper.inspection import EventRow, JobRow, LineRow, ModelRow, NodeRow, Status, Why
from tests.cli import samples
from tests.cli.canned import TOKEN, Answer, Canned, as_json, error, serving

OTHER = samples.MODEL.model_copy(update={"id": 5, "hash": "3f" + "1" * 62, "champion": False})


@pytest.fixture
def canned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    """A coordinator on ./gamekeeper-data of the working directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("GAMEKEEPER_DATA_DIR", "GAMEKEEPER_URL", "GAMEKEEPER_TOKEN", "GAMEKEEPER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    with serving() as canned:
        canned.announce(tmp_path / "gamekeeper-data")
        canned.answers = {
            "/v1/status": as_json(samples.STATUS),
            "/v1/lines": as_json([samples.LINE, samples.EMPTY_LINE]),
            "/v1/jobs": as_json([samples.JOB, samples.DONE_JOB]),
            "/v1/nodes": as_json([samples.NODE]),
            "/v1/models": as_json([samples.MODEL, OTHER]),
            "/v1/why/job/17": as_json(samples.WHY),
            "/v1/why/model/4": as_json(samples.WHY.model_copy(update={"subject": "model/4"})),
            "/v1/why/node/n-1a2b": as_json(samples.WHY.model_copy(update={"subject": "node/n-1a2b"})),
            "/v1/stop": as_json({"phase": "draining"}),
        }
        yield canned


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = entry(words)
    shown = capsys.readouterr()
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("words", "kind", "signs"),
    [
        ("status", Status, ("1 thing needs attention", "gamekeeper why node n-2", "2 of 2 busy", "41 done")),
        ("lines", list[LineRow], ("LINE", "connect4", "71.1 % of 32 pairs", "none yet")),
        ("jobs", list[JobRow], ("WHY", "evaluate (promotion)", "128 games", "granted")),
        ("nodes", list[NodeRow], ("mill", "25.0 GB", "?")),
        ("models", list[ModelRow], ("3f2a91c4", "champion", "promotion test won")),
        (
            "why job 17",
            Why,
            ("running for 30 s", "limit 2.94", "lines.connect4.promotion.alpha", "data-refused"),
        ),
    ],
)
def test_reading_commands_show_the_answer_as_text_and_as_json(
    capsys: pytest.CaptureFixture[str], canned: Canned, words: str, kind: type[object], signs: tuple[str, ...]
) -> None:
    """A command would leave out what it is for, or its JSON would not be the documented shape."""
    code, out, _ = run(capsys, *words.split())
    assert code == 0
    for sign in signs:
        assert sign in out, sign
    code, out, err = run(capsys, *words.split(), "--json")
    assert (code, err) == (0, "")
    path = f"/v1/{words.split(maxsplit=1)[0]}" if kind is not Why else "/v1/why/job/17"
    answer = canned.answers[path]
    assert isinstance(answer, tuple)
    assert json.loads(out) == json.loads(answer[1])
    TypeAdapter(kind).validate_json(out)


def test_filters_reach_the_coordinator(capsys: pytest.CaptureFixture[str], canned: Canned) -> None:
    """`jobs --state failed` would list everything."""
    assert (
        run(capsys, "jobs", "--state", "failed", "--line", "connect4", "--kind", "train", "--limit", "7")[0]
        == 0
    )
    assert canned.asked[-1][2] == {"state": "failed", "line": "connect4", "kind": "train", "limit": "7"}
    assert run(capsys, "models", "--line", "connect4")[0] == 0
    assert canned.asked[-1][2] == {"line": "connect4"}


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("why j17", "/v1/why/job/17"), ("why job/17", "/v1/why/job/17"), ("why model 3f2a", "/v1/why/model/4"),
        ("why model 4", "/v1/why/model/4"), ("why node n-1a", "/v1/why/node/n-1a2b"),
        ("why node mill", "/v1/why/node/n-1a2b"),
    ],
)  # fmt: skip
def test_names_are_resolved(
    capsys: pytest.CaptureFixture[str], canned: Canned, words: str, path: str
) -> None:
    """A prefix would explain another thing than the one meant."""
    assert run(capsys, *words.split())[0] == 0
    assert canned.asked[-1][1] == path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("why model 3f", 2, "could be any of 4, 5"), ("why model ffff", 1, "there is no model ffff"),
        ("why node n-9", 1, "there is no node n-9"), ("why job 18", 1, "no such thing"),
        ("why artifact 1", 2, "not something that can be explained"), ("why job", 2, "does not name a thing"),
        ("why", 2, "missing argument"), ("events --since yesterday", 2, "not a duration"),
        ("jobs --state sleeping", 2, "not a job state"), ("jobs --limit 0", 2, "invalid value for '--limit'"),
        ("statsu", 2, "did you mean 'status'"), ("status --jsno", 2, "no such option"),
        ("stop --timeout 5", 2, "duration"),
    ],
)  # fmt: skip
def test_bad_input_ends_in_one_line_a_hint_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], canned: Canned, words: str, code: int, said: str
) -> None:
    """A mistake would show a traceback, or a script could not tell it from success."""
    got, out, err = run(capsys, *words.split())
    lines = err.splitlines()
    assert (got, out) == (code, "")
    assert lines[0].startswith("error: ")
    assert said in lines[0].lower()
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
    got, out, err = run(capsys, *words.split(), "--json")
    assert (got, out) == (code, "")
    assert set(json.loads(err)["error"]) == {"code", "message", "remedy"}


@pytest.mark.parametrize(
    ("answer", "code", "kind"),
    [
        (error(403, "not-allowed", "no right"), 4, "not-allowed"), ((401, b"<html>"), 4, "not-allowed"),
        (error(503, "busy", "later", retry_after_s=3), 6, "busy"), (error(409, "refused", "no"), 5, "refused"),
        ((500, b"oops"), 1, "error"), ((200, b"not json"), 1, "error"), ((200, b'{"at": 1}'), 1, "error"),
        (as_json({**samples.STATUS.model_dump(mode="json"), "surprise": 1}), 1, "error"), ((404, b"[]"), 1, "error"),
    ],
)  # fmt: skip
def test_whatever_the_coordinator_answers_there_is_a_clear_error(
    capsys: pytest.CaptureFixture[str], canned: Canned, answer: Answer, code: int, kind: str
) -> None:
    """A proxy's page or another version's answer would be shown as state, or crash the command."""
    canned.answers["/v1/status"] = answer
    got, out, err = run(capsys, "status", "--json")
    assert (got, out) == (code, "")
    assert json.loads(err)["error"]["code"] == kind


def test_no_coordinator_is_unreachable_and_says_how_to_start_one(
    capsys: pytest.CaptureFixture[str], canned: Canned, tmp_path: Path
) -> None:
    """People would stare at a connection error."""
    for data_dir in ("nowhere", "gone"):
        if data_dir == "gone":
            canned.url = "http://127.0.0.1:9"
            canned.announce(tmp_path / "gone")
        code, _, err = run(capsys, "status", "--data-dir", data_dir)
        assert code == 4
        assert f"gamekeeper up --data-dir {data_dir}" in err


def test_a_token_that_cannot_be_read_or_is_wrong_is_not_allowed(
    capsys: pytest.CaptureFixture[str], canned: Canned, tmp_path: Path
) -> None:
    """Somebody without the right would be told that nothing runs."""
    token = tmp_path / "gamekeeper-data" / "tokens" / "admin.token"
    token.write_text("wrong")
    assert run(capsys, "status")[0] == 4
    token.unlink()
    code, _, err = run(capsys, "status")
    assert code == 4
    assert "admin.token" in err
    assert TOKEN not in err


def test_the_data_dir_is_found_in_the_documented_order(
    capsys: pytest.CaptureFixture[str], canned: Canned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command would look at another coordinator than the one meant."""
    (tmp_path / "gamekeeper-data").rename(tmp_path / "demo-data")
    assert run(capsys, "status")[0] == 0
    (tmp_path / "demo-data").rename(tmp_path / "mine")
    assert run(capsys, "status")[0] == 4
    (tmp_path / "gamekeeper.toml").write_text('data_dir = "mine"\n')
    assert run(capsys, "status")[0] == 0
    monkeypatch.setenv("GAMEKEEPER_DATA_DIR", str(tmp_path / "other"))
    assert run(capsys, "status")[0] == 4
    assert run(capsys, "status", "--data-dir", "mine")[0] == 0
    monkeypatch.setenv("GAMEKEEPER_URL", canned.url)
    assert run(capsys, "status")[0] == 2
    monkeypatch.setenv("GAMEKEEPER_TOKEN", TOKEN)
    assert run(capsys, "status")[0] == 0


@pytest.mark.parametrize(("healthy", "code"), [(True, 0), (False, 1), (None, 1)])
def test_status_check_is_true_only_when_all_is_known_to_be_well(
    capsys: pytest.CaptureFixture[str], canned: Canned, healthy: bool | None, code: int
) -> None:
    """Monitoring would take "cannot tell" for "well"."""
    canned.answers["/v1/status"] = as_json(samples.STATUS.model_copy(update={"healthy": healthy}))
    assert run(capsys, "status", "--check")[0] == code
    assert run(capsys, "status")[0] == 0


def log(canned: Canned, times: list[float]) -> None:
    """Serve a log with these times, as the coordinator pages through it."""
    rows = [samples.EVENT.model_copy(update={"position": i + 1, "at": at}) for i, at in enumerate(times)]

    def page(query: dict[str, str]) -> Answer:
        limit = int(query["limit"])
        if "after" in query:
            return as_json([row for row in rows if row.position > int(query["after"])][:limit])
        return as_json(rows[-limit:])

    canned.answers["/v1/events"] = page


@pytest.mark.parametrize(
    "ages", [[], [5.0], [9000.0], [9000.0, 8000.0, 7100.0, 60.0, 5.0], [9000.0] * 1200 + [50.0] * 1100]
)
def test_since_shows_exactly_the_events_of_that_time(
    capsys: pytest.CaptureFixture[str], canned: Canned, ages: list[float]
) -> None:
    """Events at the edge, or beyond one page of answers, would be missing or doubled."""
    from gamekeeper.core.clock import SystemClock

    now = SystemClock().now()
    log(canned, [now - age for age in ages])
    code, out, _ = run(capsys, "events", "--since", "2h", "--json")
    shown = [EventRow.model_validate_json(line).position for line in out.splitlines()]
    assert code == 0
    assert shown == [i + 1 for i, age in enumerate(ages) if age <= 7200]
    assert len([asked for asked in canned.asked if asked[1] == "/v1/events"]) < 25


def test_without_since_the_newest_events_are_shown_and_a_story_is_asked_for(
    capsys: pytest.CaptureFixture[str], canned: Canned
) -> None:
    """The log would start at the beginning of time, or show other things' events."""
    log(canned, [float(i) for i in range(50)])
    code, out, _ = run(capsys, "events", "--of", "j17", "--limit", "3")
    assert code == 0
    assert [int(line.split()[0]) for line in out.splitlines()] == [48, 49, 50]
    assert canned.asked[-1][2]["of"] == "job/17"


def test_stop_asks_to_drain_and_says_what_still_runs(
    capsys: pytest.CaptureFixture[str], canned: Canned
) -> None:
    """The loop would go on, or the person would think that all work has ended."""
    code, out, err = run(capsys, "stop", "--reason", "power cut at noon")
    assert (code, out) == (0, "")
    assert canned.asked[-1] == ("POST", "/v1/stop", {}, {"reason": "power cut at noon", "phase": "draining"})
    assert "gamekeeper stop --wait" in err


def test_stop_wait_ends_pending_while_jobs_run_and_done_when_none_do(
    capsys: pytest.CaptureFixture[str], canned: Canned
) -> None:
    """A script would cut the power under running jobs."""
    code, out, _ = run(capsys, "stop", "--wait", "--timeout", "0s", "--json")
    assert code == 6
    assert json.loads(out) == {"draining": True, "stopped": False}
    canned.answers["/v1/status"] = as_json(
        samples.STATUS.model_copy(update={"jobs": {"ready": 3, "done": 1}})
    )
    code, out, _ = run(capsys, "stop", "--wait", "--json")
    assert code == 0
    assert json.loads(out) == {"draining": True, "stopped": True}


def test_lines_from_jobs_cannot_forge_the_screen(capsys: pytest.CaptureFixture[str], canned: Canned) -> None:
    """A job's error text would clear the screen or pretend to be our output."""
    attempt = samples.ATTEMPT.model_copy(update={"detail": "\x1b[2J\x1b[H\nerror: all is well\r"})
    canned.answers["/v1/why/job/17"] = as_json(samples.WHY.model_copy(update={"attempts": [attempt]}))
    _, out, _ = run(capsys, "why", "job", "17")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", out)
    assert "\nerror: all is well" not in out
