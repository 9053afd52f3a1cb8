"""The settings that agents run under: taken down from connections and beats, told to people when they differ."""

from __future__ import annotations

from gamekeeper.inspection import NodeRow
from gamekeeper.protocol import Beat, Connect, Observed, Step
from gamekeeper.server import listing, status
from tests.unit.server.rig import Rig, run


def beat(rig: Rig, settings_hash: str | None) -> str:
    """Beat with the settings an agent claims to run under; the hash in the answer."""
    message = Beat(incarnation=rig.incarnation, attempts=[], observed=Observed(), settings_hash=settings_hash)
    return run(rig.here.beat(rig.node_id, message)).settings_hash


def row(rig: Rig) -> NodeRow:
    (found,) = rig.store.read(lambda r: listing.nodes(r, rig.settings.hash))
    return found


def attention(rig: Rig) -> list[str]:
    return [one.sentence for one in rig.store.read(lambda r: status.status(r, rig.settings, 0)).attention]


def test_a_node_that_has_not_said_is_unknown(rig: Rig) -> None:
    """Silence would be taken for agreement, or for a fault."""
    assert (row(rig).settings_hash, row(rig).other_settings) == (None, None)
    assert attention(rig) == []


def test_other_settings_are_told_until_the_agent_took_over_those_in_force(rig: Rig) -> None:
    """A machine that works by outdated bounds would look like all others."""
    in_force = beat(rig, "f" * 64)
    assert in_force == rig.settings.hash
    assert (row(rig).settings_hash, row(rig).other_settings) == ("f" * 64, True)
    assert ["other settings" in sentence for sentence in attention(rig)] == [True]
    beat(rig, in_force)
    assert (row(rig).settings_hash, row(rig).other_settings) == (in_force, False)
    assert attention(rig) == []
    beat(rig, None)
    assert row(rig).other_settings is False, "an agent that says nothing changes nothing"


def test_a_connection_tells_it_as_well(rig: Rig) -> None:
    """After a restart of the agent the earlier report would stand until its first beat."""
    message = Connect(
        protocol=1, incarnation="b" * 32, slots=1, held=[], observed=Observed(), settings_hash="e" * 64
    )
    run(rig.here.connect(rig.node_id, message))
    assert row(rig).settings_hash == "e" * 64


def test_a_step_tells_it_as_well(rig: Rig) -> None:
    """A busy agent, whose steps take the place of its beats, would be known by what it said long ago."""
    message = Step(incarnation=rig.incarnation, observed=Observed(), settings_hash="d" * 64)
    assert run(rig.here.step(rig.node_id, message)).settings_hash == rig.settings.hash
    assert row(rig).settings_hash == "d" * 64
