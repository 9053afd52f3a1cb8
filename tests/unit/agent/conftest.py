"""Fixtures of the agent's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.unit.agent.agent_process import AgentProcess
from tests.unit.agent.fake_coordinator import FakeCoordinator
from tests.unit.agent.served import serve

MakeAgent = Callable[..., AgentProcess]


@pytest.fixture
def fake() -> FakeCoordinator:
    return FakeCoordinator(lease_s=8.0)


@pytest.fixture
def make_agent(fake: FakeCoordinator, tmp_path: Path) -> Iterator[MakeAgent]:
    made: list[AgentProcess] = []
    with serve(fake) as url:

        def make(before: tuple[str, ...] = (), **options: object) -> AgentProcess:
            agent = AgentProcess(tmp_path, url, before, **options)
            made.append(agent)
            agent.start()
            return agent

        yield make
        for agent in made:
            agent.clean_up()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the agent's log with a failure."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    folder = getattr(item, "funcargs", {}).get("tmp_path")
    if report.when == "call" and report.failed and folder is not None and (folder / "agent.log").exists():
        report.sections.append(("agent log", (folder / "agent.log").read_text()[-6000:]))
