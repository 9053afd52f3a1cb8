"""Commands that change jobs and nodes, from the command line through a real coordinator and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gamekeeper.bootstrap import daemons_of
from gamekeeper.cli import exit_codes
from gamekeeper.cli.main import entry
from gamekeeper.core.jobs import EndReason, JobState
from gamekeeper.store import integrity, job_queue
from tests.unit.server.rig import run as wait_for
from tests.unit.server.served import Served, serving


class Person:
    """Somebody with the admin token at a terminal."""

    def __init__(self, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
        self.served = served
        self.capsys = capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        code = entry(words)
        shown = self.capsys.readouterr()
        return code, shown.out, shown.err

    def states(self) -> dict[int, str]:
        _, out, _ = self("jobs", "--json", "--limit", "1000")
        return {row["id"]: row["state"] for row in json.loads(out)}

    def turn(self) -> None:
        """One cycle of every daemon."""
        for daemon in daemons_of(self.served.here):
            wait_for(daemon.cycle(self.served.clock.now()))


@pytest.fixture
def person(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Person]:
    with serving(tmp_path / "artifacts") as served:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GAMEKEEPER_URL", served.url)
        monkeypatch.setenv("GAMEKEEPER_TOKEN", "admin-secret")
        monkeypatch.delenv("GAMEKEEPER_DATA_DIR", raising=False)
        yield Person(served, capsys)
        assert served.store.read(integrity.check) == []


GROUP = """
[[jobs]]
kind = "command"
line = "mini"
command = ["prepare"]
requirements = { cpus = 2.0 }

[[jobs]]
kind = "command"
line = "mini"
command = ["work", "hard"]
needs = [{ in_group = 0, rule = "skip" }]
key = "work"
"""


def test_a_group_of_a_file_is_submitted_and_shown(person: Person, tmp_path: Path) -> None:
    """A field of the file would be lost on the way, or a need would point to another job."""
    (tmp_path / "jobs.toml").write_text(GROUP)
    code, out, err = person("jobs", "submit", "jobs.toml", "--producer", "me")
    assert (code, len(out.split())) == (0, 2)
    assert "2 of 2 jobs were created" in err
    first, second = map(int, out.split())
    code, out, _ = person("jobs", "show", str(second), "--json")
    shown = json.loads(out)
    assert shown["job"]["state"] == "waiting"
    assert (shown["command"], shown["key"], shown["producer"]) == (["work", "hard"], "work", "me")
    assert shown["needs"] == [{"job": first, "rule": "skip", "met": False, "state": "ready"}]
    _, out, _ = person("jobs", "show", str(first))
    assert f"job {second}" in out
    assert "cpus 2.0" in out
    _, out, _ = person("why", "job", str(second))
    assert f"it waits for job {first}" in out
    _, out, _ = person("events", "--of", f"job/{second}")
    assert "jobs-submitted" in out
    person("jobs", "cancel", str(first))
    assert person.states() == {first: "cancelled", second: "skipped"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"kind": "comand", "line": "x", "command": ["y"]}]', "did you mean 'command'?"),
        ('[{"kind": "command", "line": "x", "command": ["y"], "requirements": {"gpu": 1}}]', "requirement 'gpu'"),
        ('[{"kind": "command", "line": "x", "command": ["y"], "needs": [{"job": 77}]}]', "job 77"),
        ('[{"kind": "command", "line": "x", "command": ["y"], "needs": [{}]}]', "either a job or a place"),
        ('[{"kind": "command", "line": "x", "command": ["y"], "colour": 1}]', "colour"),
        ("{", "cannot be understood"),
        ("[]", "holds no jobs"),
    ],
)  # fmt: skip
def test_a_bad_file_stores_nothing_and_says_why(
    person: Person, tmp_path: Path, text: str, words: str
) -> None:
    """A slip would be stored as a job that nobody wanted."""
    (tmp_path / "jobs.json").write_text(text)
    code, out, err = person("jobs", "submit", "jobs.json")
    assert code in {exit_codes.USAGE, exit_codes.FAILED}
    assert out == ""
    assert words in err
    assert person.states() == {}


def test_single_jobs_are_held_released_cancelled_and_retried(person: Person) -> None:
    """A verb would do another thing, or hide that it was refused."""
    first, second = person.served.submit("command"), person.served.submit("command")
    assert person("jobs", "hold", str(first), str(second), "--because", "wait")[0] == 0
    assert set(person.states().values()) == {"held"}
    assert "held: wait" in person("why", "job", str(first))[1]
    code, out, _ = person("jobs", "release", str(first), "--json")
    assert (code, json.loads(out)) == (0, [{"id": first, "state": "ready", "successor": None}])
    person("jobs", "cancel", str(first))
    code, _, err = person("jobs", "hold", str(first), str(second))
    assert code == exit_codes.REFUSED
    assert "cancelled to held" in err
    code, _, err = person("jobs", "retry", str(first))
    assert (code, "follows it" in err) == (0, True)
    assert person("jobs", "retry", str(first))[2] == err
    assert person("jobs", "cancel", "99")[0] == exit_codes.FAILED
    assert person("jobs", "cancel")[0] == exit_codes.USAGE


def test_many_jobs_are_planned_then_done(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many jobs would be changed without a look, without --yes, or other ones than were shown."""
    ids = [person.served.submit("command", purpose="x") for _ in range(6)]
    other = person.served.submit("selfplay")
    where = ("--where", "kind=command purpose=x")
    code, out, _ = person("jobs", "cancel", *where, "--dry-run")
    assert (code, "6 jobs" in out) == (0, True)
    assert person("jobs", "cancel", *where)[0] == exit_codes.USAGE
    assert person("jobs", "cancel", "--where", "stat=ready", "--yes")[0] == exit_codes.USAGE
    assert set(person.states().values()) == {"ready"}
    # The command looks again and again until the coordinator is done; here each look is one of its turns.
    monkeypatch.setattr("gamekeeper.core.clock.SystemClock.block", lambda *_: person.turn())
    code, out, _ = person("jobs", "cancel", *where, "--yes", "--json", "--because", "not wanted")
    done = json.loads(out)
    assert (code, done["state"], done["changed"], done["reason"]) == (0, "done", 6, "not wanted")
    states = person.states()
    assert {states[one] for one in ids} == {"cancelled"}
    assert states[other] == "ready"
    code, out, _ = person("jobs", "bulk", "list", "--json")
    assert [row["id"] for row in json.loads(out)] == [done["id"]]
    assert person("jobs", "bulk", "stop", str(done["id"]))[0] == exit_codes.REFUSED
    assert "100%" in person("jobs", "bulk")[1]


def test_a_node_is_excluded_and_allowed(person: Person) -> None:
    """A person could not take a broken machine out, or would not see that it is out."""
    node = person.served.node_id
    code, _, err = person("nodes", "exclude", node, "--for", "2h", "--because", "fan is broken")
    assert (code, "for 2h" in err or "2 h" in err) == (0, True)
    assert "excluded" in person("nodes")[1]
    assert "fan is broken (admin)" in person("why", "node", node)[1]
    assert person("nodes", "allow", node)[0] == 0
    assert "excluded" not in person("nodes")[1]
    assert person("nodes", "exclude", "n-none", "--for", "2h", "--because", "x")[0] == exit_codes.FAILED


def test_failures_of_one_node_are_not_charged_to_its_jobs(person: Person) -> None:
    """A broken machine would use up the budgets of all jobs it is given."""
    rig = person.served
    rig.join(incarnation="b" * 32)
    for _ in range(3):
        rig.finish(rig.attempt("command"), reason=EndReason.OWN_ERROR, exit_code=1)
    person.turn()
    assert "excluded" in person("nodes")[1]
    _, out, _ = person("events", "--of", f"node/{rig.node_id}", "--json")
    assert [json.loads(row)["name"] for row in out.splitlines()][-2:] == [
        "node-excluded",
        "attempts-forgiven",
    ]
    live = [job for job in rig.store.read(job_queue.live) if job.spec.kind == "command"]
    assert [(job.state, job.failures) for job in live] == [(JobState.READY, 0)] * 3
