"""Real agents, wardens and jobs against a served fake coordinator: who survives whom, and what is reported."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from blake3 import blake3

from gamekeeper.adapters import processes
from gamekeeper.core.jobs import EndReason
from tests.unit.agent.agent_process import job, until_gone
from tests.unit.agent.conftest import MakeAgent
from tests.unit.agent.fake_coordinator import CREDENTIAL, JOIN_TOKEN, FakeCoordinator
from tests.waiting import until

pytestmark = pytest.mark.slow

PATIENT = """
mark("running")
while not (here / "go").exists():
    time.sleep(0.02)
receipt(games=1, samples=1, shards=[])
"""


def test_a_job_runs_ships_and_is_reported(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """The whole path: inputs, parameters, sealed files before the end, receipt, nothing left behind."""
    model = fake.add_blob(b"weights" * 100_000)
    fake.add_job(
        job("""
data = (here / parameters["inputs"]["model"][0]["path"]).read_bytes()
mark("progress.json", json.dumps({"units": 1, "note": "one", "figures": {"loss": 0.5}}))
seal("games-1.npz", data[:300_000], games=1, samples=2)
time.sleep(0.4)
seal("games-2.npz", b"second", games=1, samples=2)
receipt(games=2, samples=4, shards=[], threads=os.environ["OMP_NUM_THREADS"], p=parameters["parameters"])
"""),
        inputs={"model": [model]},
        parameters={"simulations": 7},
    )
    agent = make_agent()
    finish = until(fake.finished)
    assert finish.reason is EndReason.FINISHED
    assert finish.exit_code == 0
    assert finish.receipt == {"games": 2, "samples": 4, "shards": [], "threads": "1", "p": {"simulations": 7}}
    assert finish.units == 1
    names = {item.name for item in fake.attempts[1].accepted.values()}
    assert names == {"games-1.npz", "games-2.npz"}
    assert fake.attempts[1].started is not None
    until(lambda: not agent.place().root.exists())
    assert agent.end() == 0


def test_secrets_stay_in_files_only_the_agent_reads(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """A credential in an environment, an argument or a log is readable by others."""
    fake.add_job(job('receipt(seen=[n for n in os.environ if n.startswith("GAMEKEEPER_")])'))
    agent = make_agent()
    finish = until(fake.finished)
    assert finish.receipt == {"seen": ["GAMEKEEPER_JOB_DIR"]}
    assert agent.process is not None
    arguments = (processes._PROC / str(agent.process.pid) / "cmdline").read_text()
    for secret in (JOIN_TOKEN, CREDENTIAL):
        assert secret not in arguments + agent.log.read_text()
    assert (agent.folder / "identity.json").stat().st_mode & 0o777 == 0o600


def test_exit_without_receipt_is_reported_as_it_is(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """An agent that made up evidence would hide hollow jobs."""
    fake.add_job(job("pass"))
    make_agent()
    finish = until(fake.finished)
    assert (finish.exit_code, finish.receipt, finish.reason) == (0, None, EndReason.FINISHED)


def test_an_error_is_reported_with_its_words(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """Without the end of stderr nobody can tell why a job failed."""
    fake.add_job(job('raise ValueError("the board is upside down")'))
    make_agent()
    finish = until(fake.finished)
    assert finish.reason is EndReason.OWN_ERROR
    assert finish.exit_code == 1
    assert "the board is upside down" in finish.detail


def test_a_job_outlives_its_agent_and_is_adopted(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """A restart of the agent must cost no work: the same process goes on, and its exit code is known."""
    fake.add_job(job(PATIENT + "\nsys.exit(0)"))
    agent = make_agent()
    agent.await_mark("running")
    record = agent.record()
    agent.kill()
    assert processes.is_alive(record.job)
    agent.start()
    until(lambda: fake.connects == 2)
    assert agent.record() == record
    (agent.place().job / "go").touch()
    finish = until(fake.finished)
    assert finish.reason is EndReason.FINISHED
    assert finish.exit_code == 0
    assert len(fake.attempts) == 1


def test_a_job_that_ended_without_an_agent_is_reported(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """The work of the last minutes before a restart must not be lost, its files included."""
    fake.add_job(job(PATIENT.replace("receipt(", 'seal("late.npz", b"late", games=1)\nreceipt(')))
    agent = make_agent()
    agent.await_mark("running")
    record = agent.record()
    agent.kill()
    (agent.place().job / "go").touch()
    until_gone(record.warden)
    agent.start()
    finish = until(fake.finished)
    assert finish.reason is EndReason.FINISHED
    assert [item.name for item in fake.attempts[1].accepted.values()] == ["late.npz"]


def test_a_killed_warden_takes_its_job_along(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """A job nobody can stop any more must not live; a child that left its group must not either."""
    fake.add_job(
        job(
            """
if os.fork() == 0:
    os.setsid()
    mark("child", str(os.getpid()))
    time.sleep(100)
"""
            + PATIENT
        )
    )
    agent = make_agent()
    child = processes.identity(int(agent.await_mark("child")))
    assert child is not None
    agent.await_mark("running")
    record = agent.record()
    assert processes.send(record.warden, signal.SIGKILL)
    finish = until(fake.finished)
    assert finish.reason is EndReason.KILLED
    assert not processes.is_alive(record.job)
    assert not processes.is_alive(child)


def test_the_deadline_ends_the_job_of_a_dead_agent(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """A lease nobody renews must not leave a process behind that works for nobody."""
    fake.lease_s = 3.0
    fake.add_job(job("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PATIENT))
    agent = make_agent()
    agent.await_mark("running")
    record = agent.record()
    agent.kill()
    until_gone(record.job, 6.0)
    exit_ = until(lambda: agent.place().exit())
    assert exit_.cause == "deadline"
    agent.start()
    finish = until(fake.finished)
    assert finish.reason is EndReason.LEASE_EXPIRED


def test_a_cancelled_job_is_stopped_even_if_it_ignores_sigterm(
    fake: FakeCoordinator, make_agent: MakeAgent
) -> None:
    """The ladder must end in a process that is gone."""
    fake.lease_s = 3.0
    fake.add_job(job("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + PATIENT), grace_s=0.5)
    agent = make_agent()
    agent.await_mark("running")
    record = agent.record()
    fake.cancelled.add(1)
    finish = until(fake.finished)
    assert finish.reason is EndReason.STOP_REQUESTED
    assert not processes.is_alive(record.job)


def test_a_stopped_job_may_hand_in_what_it_has(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """Work that is done when a stop comes is work."""
    fake.lease_s = 3.0
    fake.add_job(
        job("""
mark("running")
while not (here / "stop").exists():
    time.sleep(0.02)
seal("part.npz", b"part", games=1)
receipt(games=1)
"""),
        grace_s=10.0,
    )
    agent = make_agent()
    agent.await_mark("running")
    fake.cancelled.add(1)
    finish = until(fake.finished)
    assert finish.reason is EndReason.FINISHED
    assert len(fake.attempts[1].accepted) == 1


def test_a_lost_lease_stops_the_job_and_drops_its_results(
    fake: FakeCoordinator, make_agent: MakeAgent
) -> None:
    """Whoever goes on after losing the lease works beside the one who got the job next."""
    fake.lease_s = 3.0
    fake.add_job(job(PATIENT), grace_s=0.5)
    agent = make_agent()
    agent.await_mark("running")
    record = agent.record()
    fake.expire()
    until_gone(record.job)
    until(lambda: fake.connects == 2)
    fake.add_job(job("receipt(games=1)"))
    until(lambda: fake.finished(2))
    assert fake.finished(1) is None
    until(lambda: not agent.place(1).root.exists())


def test_a_terminated_agent_stops_its_jobs_and_says_so(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """A machine that is taken away must hand its work back at once, not after a lease."""
    fake.add_job(job(PATIENT), grace_s=1.0)
    agent = make_agent()
    agent.await_mark("running")
    record = agent.record()
    assert agent.end() == 0
    assert not processes.is_alive(record.job)
    finish = fake.finished()
    assert finish is not None
    assert finish.reason is EndReason.NODE_GOING_AWAY


def test_lost_answers_and_outages_change_nothing(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """Every call must survive that its answer is lost after it took effect."""
    fake.lease_s = 4.0
    data = bytes(range(256)) * 2000
    fake.swallow = {"connect", "chunk", "seal", "finish", "beat"}
    fake.add_job(job(f"seal('a.npz', bytes(range(256)) * 2000, games=1)\n{PATIENT}"))
    agent = make_agent()
    agent.await_mark("running")
    fake.outage = True
    until(lambda: fake.calls[-1:] and fake.calls.count("beat") >= 2)
    (agent.place().job / "go").touch()
    fake.outage = False
    finish = until(fake.finished)
    assert finish.reason is EndReason.FINISHED
    assert list(fake.attempts[1].accepted) == [blake3(data).hexdigest()]
    assert not fake.swallow
    until(lambda: not agent.place().root.exists())
    assert len(fake.attempts) == 1


def test_a_grant_whose_answer_was_lost_is_not_left_hanging(
    fake: FakeCoordinator, make_agent: MakeAgent
) -> None:
    """The coordinator would wait for ever for an attempt the agent never heard of."""
    fake.swallow = {"claim"}
    fake.add_job(job("receipt(games=1)"))
    make_agent()
    until(lambda: fake.attempts.get(1) and fake.attempts[1].end == "agent-restarted")
    fake.add_job(job("receipt(games=1)"))
    until(lambda: fake.finished(2))


def test_a_refused_file_is_told_and_the_rest_goes_on(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """One bad file must not hold up its attempt, nor vanish without a word."""
    fake.refuse = {"bad.npz": "values hold NaN"}
    fake.add_job(
        job("""
seal("bad.npz", b"bad", games=1)
seal("good.npz", b"good", games=1)
(here / "outbox" / "short.npz").write_bytes(b"1")
mark("outbox/short.npz.seal", json.dumps({"artifact": "shard", "bytes": 2, "hash": None, "metadata": {}}))
os.symlink("/etc/hostname", here / "outbox" / "link")
mark("outbox/link.seal", json.dumps({"artifact": "shard", "bytes": 2, "hash": None, "metadata": {}}))
mark("outbox/torn.seal", "{")
receipt(games=1)
""")
    )
    make_agent()
    finish = until(fake.finished)
    assert "values hold NaN" in finish.detail
    for name in ("bad.npz", "short.npz", "link", "torn"):
        assert name in finish.detail
    assert [item.name for item in fake.attempts[1].accepted.values()] == ["good.npz"]


def test_a_missing_program_and_a_missing_input_are_refused(
    fake: FakeCoordinator, make_agent: MakeAgent
) -> None:
    """The agent must say what it could not do, and go on."""
    fake.add_job(["no-such-program-here"])
    spoiled = fake.add_blob(b"model bytes")
    fake.bad_blobs.add(spoiled.hash)
    fake.add_job(job("receipt(games=1)"), inputs={"model": [spoiled]})
    fake.add_job(job("receipt(games=1)"))
    make_agent()
    finish = until(fake.finished)
    assert finish.reason is EndReason.CANNOT_START
    assert "no-such-program-here" in finish.detail
    finish = until(lambda: fake.finished(2))
    assert finish.reason is EndReason.INPUT_UNAVAILABLE
    finish = until(lambda: fake.finished(3))
    assert finish.reason is EndReason.FINISHED


def test_a_full_disk_refuses_attempts_and_recovers(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """A node without room must say so, keep its lease, and not take one job after the other."""
    big = fake.add_blob(b"0123456789abcdef" * 1000)
    big = big.model_copy(update={"bytes": 1 << 55})
    fake.add_job(job("receipt(games=1)"), inputs={"model": [big]})
    fake.add_job(job("receipt(games=1)"))
    agent = make_agent()
    finish = until(fake.finished)
    assert finish.reason is EndReason.SPOOL_FULL
    assert "bytes free" in finish.detail
    assert until(lambda: fake.finished(2)).reason is EndReason.FINISHED
    assert not list((agent.folder / "cache").glob("*.part"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="needs to mount")
def test_a_job_that_fills_the_disk_is_not_blamed_for_it(
    fake: FakeCoordinator, make_agent: MakeAgent, tmp_path: Path
) -> None:
    """A really full disk: the cause is named, the lease is kept, and the next job runs."""
    mount = 'mount -t tmpfs -o size=12m none "$0" && exec "$@"'
    (tmp_path / "agent").mkdir()
    fake.add_job(
        job("""
with open(here / "outbox" / "big", "wb", buffering=0) as file:
    while True:
        file.write(bytes(1 << 16))
""")
    )
    fake.add_job(job("receipt(games=1)"))
    agent = make_agent(
        before=("unshare", "--mount", "--propagation", "private", "sh", "-c", mount, str(tmp_path / "agent")),
        free_bytes_least=2 << 20,
    )
    finish = until(fake.finished)
    assert finish.reason is EndReason.SPOOL_FULL
    assert "disk space" in finish.detail
    assert until(lambda: fake.finished(2)).reason is EndReason.FINISHED
    assert fake.connects == 1
    assert agent.end() == 0


def test_below_the_least_free_space_nothing_is_claimed(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """Taking work one cannot start only burns it."""
    fake.lease_s = 3.0
    fake.add_job(job("receipt(games=1)"))
    make_agent(free_bytes_least=1 << 60)
    until(lambda: fake.calls.count("beat") >= 1)
    assert "claim" not in fake.calls


def test_a_second_agent_on_the_folder_is_refused(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """Two owners of one folder would end each other's jobs."""
    first = make_agent()
    until(lambda: fake.connects == 1)
    second = make_agent()
    assert second.process is not None
    assert second.process.wait(20) == 5
    said = json.loads(second.log.read_text().strip().splitlines()[-1])
    assert said["code"] == "role-held"
    assert str(first.folder) in said["message"]
    assert fake.connects == 1


def test_a_wrong_join_token_ends_the_agent(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """An agent that keeps asking with a wrong token would knock for ever."""
    agent = make_agent()
    agent.kill()
    (agent.folder / "identity.json").unlink(missing_ok=True)
    (agent.folder.parent / "join.token").write_text("wrong\n")
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(20) == 4


def test_several_slots_are_kept_full(fake: FakeCoordinator, make_agent: MakeAgent) -> None:
    """Never more processes than slots, and all jobs done."""
    for _ in range(8):
        fake.add_job(job("time.sleep(0.2); receipt(pid=os.getpid())"))
    make_agent(slots=3)
    until(lambda: all(fake.finished(number) for number in range(1, 9)), 40.0)
    pids = {json.dumps(item.finish.receipt) for item in fake.attempts.values() if item.finish}
    assert len(pids) == 8


def test_the_agent_ends_when_the_coordinator_does_not_know_it(
    fake: FakeCoordinator, make_agent: MakeAgent
) -> None:
    """A node of another coordinator must be told so, with the remedy."""
    agent = make_agent()
    until(lambda: fake.connects == 1)
    agent.kill()
    document = json.loads((agent.folder / "identity.json").read_text())
    (agent.folder / "identity.json").write_text(json.dumps({**document, "credential": "other"}))
    agent.start()
    assert agent.process is not None
    assert agent.process.wait(20) == 4
    assert "identity.json" in agent.log.read_text()
    assert os.path.exists(agent.folder / "identity.json")
