"""Nodes and tokens."""

from __future__ import annotations

import pytest

from gamekeeper.core.errors import UsageError
from gamekeeper.core.events import NodeEnrolled, NodeLost
from gamekeeper.core.nodes import NodeStatus
from gamekeeper.store import event_log, inventory
from tests.unit.store.rig import LEASE_S, START, VIOLATED, Rig, digest


def test_an_identity_is_issued_once_per_machine(rig: Rig) -> None:
    """Breaks if two machines of one host name share an identity, or enrolment leaves no trace."""
    one = rig.w(inventory.enrol, "host", 4, digest(1))
    two = rig.w(inventory.enrol, "host", 2, digest(2))
    assert one.id != two.id
    assert (one.host_name, one.slots, one.status, one.enrolled_at) == ("host", 4, NodeStatus.UNKNOWN, START)
    assert rig.r(inventory.node_by_credential, digest(1)) == one
    assert rig.r(inventory.node_by_credential, digest(3)) is None
    assert rig.r(inventory.node, two.id) == two
    assert rig.r(inventory.node, "n-none") is None
    assert rig.r(inventory.nodes) == sorted([one, two], key=lambda node: node.id)
    assert rig.r(event_log.story, f"node/{one.id}")[0].event == NodeEnrolled(one.id, "host", 4)


def test_a_node_id_that_is_taken_is_not_issued_again(rig: Rig) -> None:
    """Breaks if two machines that draw the same number become one."""
    ids = set()
    for n in range(3):
        rig.store.write(lambda w: w.rng.seed(5))
        ids.add(rig.w(inventory.enrol, "host", 1, digest(n)).id)
    assert len(ids) == 3


def test_a_credential_names_one_node(rig: Rig) -> None:
    """Breaks if one credential is good for two identities."""
    rig.w(inventory.enrol, "host", 1, digest(1))
    with pytest.raises(VIOLATED):
        rig.w(inventory.enrol, "host", 1, digest(1))


def test_a_node_offers_slots(rig: Rig) -> None:
    """Breaks if a machine without room is enrolled."""
    with pytest.raises(UsageError, match="0 slots"):
        rig.w(inventory.enrol, "host", 0, digest(1))


def test_a_lost_node_is_marked_and_told(rig: Rig) -> None:
    """Breaks if a lost node shows as up, or nobody hears of it."""
    node_id, _ = rig.agent()
    rig.turn(LEASE_S)
    rig.w(inventory.mark_lost, node_id)
    node = rig.r(inventory.node, node_id)
    assert node is not None
    assert node.status is NodeStatus.LOST
    assert rig.r(event_log.story, f"node/{node_id}")[-1].event == NodeLost(node_id)


def test_token_hashes_are_kept_by_name_and_replaced(rig: Rig) -> None:
    """Breaks if a replaced token is still good, or one name's token passes for another's."""
    assert rig.r(inventory.token_hash, "admin") is None
    rig.w(inventory.set_token_hash, "admin", digest(1))
    rig.w(inventory.set_token_hash, "join", digest(2))
    rig.w(inventory.set_token_hash, "admin", digest(3))
    assert rig.r(inventory.token_hash, "admin") == digest(3)
    assert rig.r(inventory.token_hash, "join") == digest(2)
