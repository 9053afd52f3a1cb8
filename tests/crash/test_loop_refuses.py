"""Faults of job programs and of the disk, in real processes: refused by name, and the loop goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.living_loop import LivingLoop
from tests.waiting import until

FAULTS = {
    "hollow-selfplay": ("selfplay", "hollow", "no-receipt", "receipt"),
    "nan": ("selfplay", "failed", "data-refused", "finite"),
    "shape": ("selfplay", "failed", "data-refused", "shape"),
    "no-targets": ("selfplay", "failed", "data-refused", "missing"),
    "hollow-train": ("train", "hollow", "no-receipt", "receipt"),
}


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[LivingLoop]:
    """A loop whose programs fail on order."""
    living = LivingLoop(tmp_path)
    shutil.copy(Path(__file__).with_name("sabotage.py"), tmp_path)
    text = living.settings.read_text()
    living.settings.write_text(text.replace("tictactoe.py", "sabotage.py"))
    try:
        yield living
    finally:
        living.end()


@pytest.mark.slow
def test_every_fault_of_a_program_is_refused_by_name_and_the_loop_goes_on(loop: LivingLoop) -> None:
    """A trainer that exits 0 for nothing, or data with NaN, wrong shapes or no targets, would otherwise count."""
    for fault in FAULTS:
        (loop.folder / f"order-{fault}").touch()
    loop.start()
    for fault, (kind, state, reason, word) in FAULTS.items():
        query = (
            "SELECT detail FROM attempts JOIN jobs ON jobs.id = job_id"
            f" WHERE kind = '{kind}' AND attempts.state = '{state}' AND attempts.reason = '{reason}'"
            f" AND detail LIKE '%{word}%'"
        )
        assert until(lambda query=query: loop.rows(query), within_s=90), fault  # type: ignore[misc]
        assert not (loop.folder / f"order-{fault}").exists()
    until(lambda: loop.count("champion-moved") >= 2, within_s=90)
    loop.note_acknowledged()
    loop.stop()
    loop.check_at_rest()


@pytest.mark.slow
def test_stop_winds_down_and_the_next_up_turns_again(loop: LivingLoop) -> None:
    """A loop that cannot be stopped without losing work, or not be started again, leaves only killing it."""
    loop.start()
    until(lambda: loop.count("artifact-accepted") >= 2, within_s=60)
    answer = loop.command("stop", "--wait", "--reason", "the test says so")
    assert (answer.returncode, loop.wait_for_up()) == (0, 0)
    assert loop.rows("SELECT count(*) FROM attempts WHERE state IN ('lost', 'failed')") == [(0,)]
    loop.note_acknowledged()
    loop.check_at_rest()
    accepted = loop.count("artifact-accepted")
    loop.start()
    until(lambda: loop.count("artifact-accepted") > accepted, within_s=60)
    loop.stop()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system can be mounted by root only")
def test_full_disk_in_the_spool_is_said_and_harms_nothing(loop: LivingLoop) -> None:
    """Outputs cut off by a full disk must never be shipped, and work must resume once there is room."""
    spool = loop.data / "agent"
    spool.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=700", "spool", str(spool)], check=True)
    try:
        text = loop.settings.read_text()
        loop.settings.write_text(text.replace("[lines.", "[agent]\nmin_free_bytes = 4194304\n\n[lines.", 1))
        loop.start()
        until(lambda: loop.count("artifact-accepted") >= 3, within_s=60)
        with (spool / "ballast").open("wb") as ballast:
            until(lambda: _fill(ballast.fileno()), within_s=20)
        accepted = loop.count("artifact-accepted")
        until(lambda: "no room" in _said(loop) or "space" in _said(loop), within_s=60)
        (spool / "ballast").unlink()
        until(lambda: loop.count("artifact-accepted") >= accepted + 3, within_s=90)
        loop.note_acknowledged()
        loop.stop()
        loop.check_at_rest()
    finally:
        loop.end()
        subprocess.run(["umount", "-l", str(spool)], check=True)


def _fill(descriptor: int) -> bool:
    """Write until the file system is full."""
    try:
        os.write(descriptor, bytes(1 << 20))
    except OSError:
        return True
    return False


def _said(loop: LivingLoop) -> str:
    """What the store and the output of `up` say."""
    refused = loop.rows("SELECT detail FROM attempts WHERE state IN ('refused', 'failed')")
    return " ".join(str(row[0]) for row in refused) + loop.output.read_text(errors="replace")
