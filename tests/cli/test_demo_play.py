"""Playing a finished demo's models, for people and for programs."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from gamekeeper.cli import demo_play
from gamekeeper.cli.main import entry
from gamekeeper.core.clock import SystemClock
from gamekeeper.core.decisions import Decision, Verdict
from gamekeeper.core.jobs import JobSpec
from gamekeeper.demo import net
from gamekeeper.store import decisions, job_queue, registry
from gamekeeper.store.engine import Store
from gamekeeper.store.session import Writing


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A demo's folder with a champion (model 1) and a candidate (model 2)."""
    folder = tmp_path / "demo"
    folder.mkdir()
    digests = []
    for seed in (1, 2):
        file = io.BytesIO()
        net.save(net.new_weights(np.random.default_rng(seed), 8, 2), file)
        digest = blake3(file.getvalue()).hexdigest()
        path = folder / "artifacts" / "blake3" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
        digests.append(digest)
    with Store.open(folder / "gamekeeper.db", SystemClock()) as store:

        def fill(w: Writing) -> None:
            job, _ = job_queue.submit(w, JobSpec(kind="found", line="connect4", command=("x",)))
            for digest in digests:
                registry.register_model(
                    w, "connect4", digest, parent_id=None, job_id=job, steps=0, samples=0, loss=None
                )
            said = Verdict("model/1", "founding", "the line starts with it", acted=True)
            decision = decisions.record(w, Decision("promotion", w.now, (said,)), epoch=1)
            assert decision is not None
            registry.move_champion(w, "connect4", 1, None, decision)

        store.write(fill)
    return folder


def play(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: bytes, *options: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))
    code = entry(["demo", "play", "--simulations", "4", *options])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_every_line_gets_exactly_one_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """A judge from outside would wait for ever, or pair answers with the wrong positions."""
    lines = [b"3,3,2", b"", b" 0 , 1 ", b"7", b"3,,3", b"x", b"-1", b"3;3", b"0,0,0,0,0,0,0", b"\xff\xfe",
             b"3,3,3,3,3,3,3", b"0,1,0,1,0,1,0", b"9" * 10_000, b"1," * 3000, b"6\r"]  # fmt: skip
    code, out, _ = play(monkeypatch, capsys, b"\n".join(lines), "--stdin", "--data-dir", str(data_dir))
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(answers) == len(lines)
    for given, answer in zip(lines, answers, strict=True):
        if given.strip() in (b"3,3,2", b"", b"0 , 1", b"6"):
            assert set(answer) == {"move", "value"}, given
            assert answer["move"] in range(7)
            assert -1 <= answer["value"] <= 1
        else:
            assert set(answer) == {"error"}, given


def test_answers_come_while_the_input_is_open(data_dir: Path) -> None:
    """A program that asks one position at a time would deadlock with us."""
    import subprocess

    command = [sys.executable, "-m", "gamekeeper.cli", "demo", "play", "--stdin", "--simulations", "2"]
    with subprocess.Popen(
        [*command, "--data-dir", str(data_dir)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for moves in ("3", "3,2"):
            process.stdin.write(moves + "\n")
            process.stdin.flush()
            assert "move" in json.loads(process.stdout.readline())
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_model_is_chosen_by_number_or_hash_and_the_champion_otherwise(data_dir: Path) -> None:
    """Another model than the named one would be judged."""
    champion, second = demo_play.find(data_dir, None), demo_play.find(data_dir, "2")
    assert (champion.id, second.id) == (1, 2)
    assert demo_play.find(data_dir, second.hash[:10]) == second
    assert demo_play.find(data_dir, "model/1") == champion
    assert blake3(second.path.read_bytes()).hexdigest() == second.hash


@pytest.mark.parametrize(("model", "code"), [("99", 1), ("zz", 1), ("", 1)])
def test_an_unknown_model_is_an_error_that_names_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path, model: str, code: int
) -> None:
    """The champion would silently stand in for a model that does not exist."""
    got, out, err = play(
        monkeypatch, capsys, b"3\n", "--stdin", "--model", model, "--data-dir", str(data_dir)
    )
    assert (got, out) == (code, "")
    assert "error: there is no model" in err
    assert "2, 1" in err


def test_a_damaged_model_is_not_played(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """Rotten weights would be judged as the champion."""
    path = demo_play.find(data_dir, None).path
    path.write_bytes(path.read_bytes()[:-1])
    code, out, err = play(monkeypatch, capsys, b"3\n", "--stdin", "--data-dir", str(data_dir), "--json")
    assert (code, out) == (1, "")
    assert json.loads(err)["error"]["code"] == "corrupt"


def test_a_folder_without_a_demo_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Looking would create an empty database."""
    code, _, err = play(monkeypatch, capsys, b"", "--data-dir", str(tmp_path))
    assert code == 1
    assert "holds no demo" in err
    assert list(tmp_path.iterdir()) == []


def test_reading_does_not_disturb_a_running_coordinator(data_dir: Path) -> None:
    """Playing would need the coordinator to stop, or would lock it out."""
    with Store.open(data_dir / "gamekeeper.db", SystemClock()) as store:
        assert demo_play.find(data_dir, None).id == 1
        store.write(lambda w: job_queue.submit(w, JobSpec(kind="found", line="other", command=("x",))))


def test_a_person_can_play_a_whole_game(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """The game would hang, accept a full column, or not notice its end."""
    text = b"9\nx\n" + b"".join(b"%d\n" % (turn % 7) for turn in range(200))
    code, out, _ = play(monkeypatch, capsys, text, "--data-dir", str(data_dir), "--second")
    assert code == 0
    assert out.count("that is no column") >= 2
    assert out.splitlines()[-1] in ("you won", "the model won", "nobody won")


def test_a_person_can_leave(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data_dir: Path
) -> None:
    """Only Ctrl-C would end a game."""
    for text in (b"3\nq\n", b"3\n", b""):
        code, out, _ = play(monkeypatch, capsys, text, "--data-dir", str(data_dir))
        assert code == 0
        assert "won" not in out
