"""Every module of the coverage roadmap has a home that exists, or is announced as planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.roadmap import PRODUCT, ROOT, RoadmapError, load, parse

# What the roadmap names, by tier; 6 holds what it names outside its tables.
NAMED = {
    1: "resource_targets job_reaper daemon_adapters npz_validation transfer_verification sync_safety",
    2: "continuous_loop dead_letter_queue adaptive_resource_manager utilization_optimizer work_distributor "
    "host_health_policy dynamic_thresholds",
    3: "helpers base_orchestrator coordinator_config duration_scheduler stage_events ephemeral_data_guard "
    "quality_monitor_daemon unified_inventory unified_node_health_daemon unified_registry",
    4: "enums types node_status system_health_monitor contracts core_base core_utils curriculum_weights "
    "daemon_factory_implementations daemon_metrics daemon_registry alert_types event_mappings sync_base sync_constants "
    "tracing task_decorators master_loop_guard coordinator_dependencies core_events utils",
    5: "slurm_backend p2p_auto_deployer async_training_bridge node_health_monitor",
    6: "database_sync_manager health_check_orchestrator unified_health_manager",
}

ONE = """
[[module]]
name = "job_reaper"
tier = 1
risk = "ends jobs"
home = ["policy/job_reaper.py"]
theme = "the loop turns"
tests = 30
line = 100
branch = 100
state = "planned"
"""


def test_no_module_of_the_roadmap_is_forgotten() -> None:
    """A module dropped from roadmap.toml would never be built, and nothing would say so."""
    named = {name: tier for tier, names in NAMED.items() for name in names.split()}
    assert {module.name: module.tier for module in load()} == named


@pytest.mark.parametrize("module", load(), ids=lambda module: module.name)
def test_a_home_exists_or_is_planned(module: object) -> None:
    """A module said to be built whose file was moved or never made would keep its good name."""
    found = next(one for one in load() if one == module)
    missing = found.missing(ROOT) if found.state == "built" else []
    if found.state == "started":
        missing = [home for home in found.home if not (ROOT / PRODUCT / home).exists()]
    assert not missing, (
        f"{found.name} is {found.state}, but {', '.join(missing)} does not exist below {PRODUCT}"
    )


def test_the_floors_of_the_first_two_tiers_are_those_of_the_roadmap() -> None:
    """Floors lowered until the tests pass would make the page worthless."""
    floors = {module.name: module.tests for module in load() if module.tier <= 2}
    assert floors == {
        "resource_targets": 40,
        "job_reaper": 30,
        "daemon_adapters": 35,
        "npz_validation": 25,
        "transfer_verification": 30,
        "sync_safety": 20,
        "continuous_loop": 35,
        "dead_letter_queue": 30,
        "adaptive_resource_manager": 35,
        "utilization_optimizer": 40,
        "work_distributor": 30,
        "host_health_policy": 30,
        "dynamic_thresholds": 25,
    }
    assert all(module.line == module.branch == 100 for module in load() if module.tier <= 2)
    assert sum(module.tests for module in load() if module.tier == 3) >= 250
    assert sum(module.tests for module in load() if module.tier == 4) >= 120


def test_missing_homes_are_noticed(tmp_path: Path) -> None:
    """A check that finds every home anywhere would pass an empty tree."""
    (module,) = parse(ONE)
    assert module.missing(tmp_path) == ["policy/job_reaper.py"]
    (tmp_path / PRODUCT / "policy").mkdir(parents=True)
    (tmp_path / PRODUCT / "policy" / "job_reaper.py").touch()
    assert module.missing(tmp_path) == []


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('state = "planned"', 'state = "done"', "none of"),
        ("tier = 1", "tier = 9", "none of"),
        ("line = 100", "line = 101", "percentage"),
        ("tests = 30\n", "", "lacks tests"),
        ("tests = 30", "tests = 30\nowner = 1", "unknown key owner"),
        ('home = ["policy/job_reaper.py"]', "home = []", "no home"),
        ('state = "planned"', "state = planned", "Invalid value"),
    ],
    ids=["state", "tier", "percentage", "lacks", "unknown", "homeless", "broken"],
)
def test_a_wrong_roadmap_is_refused(old: str, new: str, complaint: str) -> None:
    """A mistyped state or floor would be taken for no floor at all."""
    with pytest.raises(ValueError, match=complaint):
        parse(ONE.replace(old, new, 1))


def test_a_name_stands_once() -> None:
    """Two entries of one name would let the lower floor win."""
    with pytest.raises(RoadmapError, match="named twice"):
        parse(ONE + ONE)
