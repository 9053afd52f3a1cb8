"""The coordinator process: one at a time, clear words when it cannot start, and a start that finds everything again."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

import gamekeeper
from gamekeeper import bootstrap
from gamekeeper.agent.config import AgentConfig
from gamekeeper.core.artifacts import Upload
from gamekeeper.core.clock import Clock
from gamekeeper.core.errors import RoleHeld, SettingsError, UsageError
from gamekeeper.runtime import data_dir
from gamekeeper.server.desk import InlineWorkers
from gamekeeper.server.principals import secret_hash
from gamekeeper.settings import Settings, resolve
from gamekeeper.store import event_log, inventory
from tests.unit.server.rig import HandClock, Rig, digest, run, shard
from tests.waiting import until

SCRIPT = """
import sys
from gamekeeper import bootstrap
from gamekeeper.core.errors import GamekeeperError
from gamekeeper.settings import resolve
flags = {"data_dir": sys.argv[1], "coordinator.port": int(sys.argv[2])}
try:
    sys.exit(bootstrap.run_coordinator(resolve({}, environment={}, flags=flags)))
except GamekeeperError as error:
    print(error.message, "|", error.remedy, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def settings(folder: Path, port: int = 0) -> Settings:
    return resolve({}, environment={}, flags={"data_dir": folder, "coordinator.port": port})


def start(folder: Path, port: int = 0, run_name: str = "") -> subprocess.Popen[str]:
    environment = {
        **os.environ, "PYTHONPATH": str(Path(gamekeeper.__file__).parents[1]), "GAMEKEEPER_RUN": run_name,
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder), str(port)], env=environment, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


@contextmanager
def coordinator(folder: Path, run_name: str = "") -> Iterator[subprocess.Popen[str]]:
    """A running coordinator that answers; ended at the end."""
    process = start(folder, run_name=run_name)
    try:
        until(lambda: process.poll() is not None or announced_by(folder) == process.pid)
        yield process
    finally:
        process.kill()
        process.communicate()


def announced_by(folder: Path) -> int:
    file = folder / "coordinator.json"
    return int(json.loads(file.read_text())["pid"]) if file.exists() else 0


def call(folder: Path, path: str, method: str = "GET", **more: object) -> httpx.Response:
    token = (folder / "tokens" / "admin.token").read_text().strip()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=data_dir.announced_url(folder), headers=headers, trust_env=False) as client:
        return client.request(method, path, **more)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_second_coordinator_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    """Two coordinators could write to one store."""
    with coordinator(tmp_path) as first:
        second = start(tmp_path)
        _, words = second.communicate(timeout=30)
        assert second.returncode == 5
        assert f"process {first.pid} at {data_dir.announced_url(tmp_path)}" in words
        assert "stop it first" in words
        assert call(tmp_path, "/v1/status").status_code == 200


@pytest.mark.slow
def test_a_killed_coordinator_is_followed_at_once_and_nothing_is_forgotten(tmp_path: Path) -> None:
    """A crash could leave a lock, a role or a moved address behind, or a wish to stop be forgotten."""
    with coordinator(tmp_path, "run-1") as first:
        url = data_dir.announced_url(tmp_path)
        assert call(tmp_path, "/v1/stop", "POST", json={"reason": "enough"}).status_code == 200
        first.kill()
        first.wait()
    with coordinator(tmp_path, "run-1"):
        assert data_dir.announced_url(tmp_path) == url, "agents would look for it in vain"
        assert call(tmp_path, "/v1/status").json()["draining"] is True
        starts = [row for row in call(tmp_path, "/v1/events").json() if row["name"] == "coordinator-started"]
        epochs = [row["fields"]["epoch"] for row in starts]
        assert len(epochs) == 2
        assert epochs[1] > epochs[0]
    with coordinator(tmp_path, "run-2"):
        assert call(tmp_path, "/v1/status").json()["draining"] is False


@pytest.mark.slow
def test_sigterm_ends_it_in_good_order(tmp_path: Path) -> None:
    """A polite stop could look like a crash, or hang on a waiting claim."""
    with coordinator(tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert not (tmp_path / "coordinator.json").exists()


def test_tokens_are_for_this_user_only_and_survive(tmp_path: Path) -> None:
    """Another user of the machine could read a token, or a restart lock everybody out."""
    token = data_dir.token_file(tmp_path, "admin")
    path = tmp_path / "tokens" / "admin.token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert data_dir.token_file(tmp_path, "admin") == token
    assert data_dir.token_file(tmp_path, "join") != token
    assert len(token) >= 40


def test_the_store_holds_only_hashes_of_tokens(rig: Rig, tmp_path: Path) -> None:
    """A copy of the database could be used to log in."""
    rig.store.write(lambda w: bootstrap.take_over(w, rig.settings, "http://x", {"admin": "plain"}, "r"))
    assert rig.store.read(lambda r: inventory.token_hash(r, "admin")) == secret_hash("plain")
    assert rig.store.read(lambda r: event_log.newest(r, 1)[0].event.name) == "settings-applied"


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    """A taken port could end in a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(SettingsError, match=f"port {port} on 127.0.0.1") as error:
            bootstrap.run_coordinator(settings(tmp_path, port))
    assert "[coordinator] port" in error.value.remedy
    assert error.value.exit_code == 2


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """A wrong data folder could end in a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written") as error:
        bootstrap.run_coordinator(settings(tmp_path / "file" / "below"))
    assert "--data-dir" in error.value.remedy
    with pytest.raises(UsageError, match="cannot be written"):
        bootstrap.run_agent(settings(tmp_path / "file" / "below"))


def test_the_lock_is_free_again_when_its_holder_is_gone(tmp_path: Path) -> None:
    """A lock could outlive its process."""
    with data_dir.only_coordinator(tmp_path) as lock:
        lock.tell("http://here")
        with pytest.raises(RoleHeld, match="http://here"), data_dir.only_coordinator(tmp_path):
            pass
    with data_dir.only_coordinator(tmp_path):
        pass


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"url": 5}', '{"url": "http://h:99999"}', '{"url": "x:9999999999999"}', "[" * 9999],
)
def test_a_broken_announcement_is_no_address(tmp_path: Path, text: str) -> None:
    """A half-written or forged file could crash the start."""
    (tmp_path / "coordinator.json").write_text(text)
    assert data_dir.announced_port(tmp_path) == 0


def test_lost_and_cut_files_are_counted_at_start(rig: Rig) -> None:
    """Data could be missing without anybody being told."""
    assert isinstance(rig.here.desk.workers, InlineWorkers)
    grant = rig.attempt()
    shards = [shard(seed=seed) for seed in range(3)]
    for data in shards:
        assert rig.hand_in(grant, data, games=2, samples=6).accepted
    stray = Upload(99, 99, "0" * 64)
    rig.files.append(stray, 0, b"left over")
    rig.files.path(digest(shards[0])).unlink()
    cut = rig.files.path(digest(shards[1]))
    cut.chmod(0o600)
    cut.write_bytes(b"cut")
    audit = run(bootstrap.clean_up(rig.here.desk))
    assert (audit.lost, audit.unverified) == (1, 1)
    assert rig.files.staged(stray) == 0


def test_an_agent_follows_its_coordinator_to_another_address(tmp_path: Path) -> None:
    """An agent could call a dead address for ever after its coordinator had to take another port."""
    served: list[str] = []

    async def serve(config: AgentConfig, _clock: Clock) -> None:
        served.append(config.url)
        if len(served) == 1:
            data_dir.announce(tmp_path, "http://second:2")
            await anyio.sleep_forever()

    async def scene() -> None:
        clock = HandClock()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bootstrap.follow_coordinator, settings(tmp_path), tmp_path, clock, serve)
            while not clock.sleeping:
                await checkpoint()
            data_dir.announce(tmp_path, "http://first:1")
            while len(served) < 2:
                await checkpoint()
                clock.advance(1.0)

    run(scene())
    assert served == ["http://first:1", "http://second:2"]


def test_an_agent_is_told_what_the_settings_say(tmp_path: Path) -> None:
    """A setting of the agent could have no effect."""
    flags = {"agent.slots": 3, "agent.min_free_bytes": 7, "data_dir": tmp_path}
    config = bootstrap.agent_config(resolve({}, environment={}, flags=flags), tmp_path, "http://x")
    assert (config.slots, config.free_bytes_least, config.url) == (3, 7, "http://x")
    assert config.folder == tmp_path / "agent"
    assert config.join_token == tmp_path / "tokens" / "join.token"
