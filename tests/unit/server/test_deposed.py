"""A coordinator that lost its role without knowing: everything it is asked to write is refused, and no row changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gamekeeper.core.artifacts import ArtifactKind, Upload
from gamekeeper.core.errors import StaleToken
from gamekeeper.core.jobs import EndReason
from gamekeeper.protocol import Beat, Connect, Enrol, Finish, Grant, Observed, SealArtifact, Started, Step
from gamekeeper.runtime.executor import RoleLost
from gamekeeper.server.desk import ROLE
from gamekeeper.store import leases
from tests.unit.server.rig import Rig, digest, run, shard
from tests.unit.store.rig import everything

DATA = shard()
WRITES: dict[str, Callable[[Rig, Grant], object]] = {
    "enrol": lambda rig, _: run(rig.here.enrol(Enrol(protocol=1, host_name="late", slots=1))),
    "connect": lambda rig, _: run(
        rig.here.connect(
            rig.node_id,
            Connect(protocol=1, incarnation="b" * 32, slots=1, held=[], observed=Observed()),
        )
    ),
    "beat": lambda rig, _: run(
        rig.here.beat(rig.node_id, Beat(incarnation=rig.incarnation, attempts=[], observed=Observed()))
    ),
    "started": lambda rig, grant: run(
        rig.here.started(
            rig.node_id, grant.attempt, Started(token=grant.token, boot_id="b", pid=1, start_ticks=2)
        )
    ),
    "finish": lambda rig, grant: run(
        rig.here.finish(
            rig.node_id,
            grant.attempt,
            Finish.model_validate({"token": grant.token, "reason": EndReason.OWN_ERROR, "exit_code": 1}),
        )
    ),
    "step": lambda rig, grant: run(
        rig.here.step(
            rig.node_id,
            Step.model_validate(
                {
                    "incarnation": rig.incarnation,
                    "attempts": [],
                    "observed": {},
                    "slots": 1,
                    "wait_s": 0,
                    "finished": [],
                }
            ),
        )
    ),
    "seal": lambda rig, grant: run(
        rig.here.uploads.seal(
            rig.node_id,
            Upload(grant.attempt, grant.token, digest(DATA)),
            SealArtifact(
                kind=ArtifactKind.SHARD, name="file.bin", bytes=len(DATA), metadata={"games": 2, "samples": 6}
            ),
        )
    ),
    "stop": lambda rig, _: run(rig.here.stop("from the past")),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_deposed_coordinator_changes_no_row(rig: Rig, name: str) -> None:
    """Breaks if any write that an agent or a person can ask for is done by one who leads no more."""
    grant = rig.attempt()
    run(rig.here.uploads.append(rig.node_id, Upload(grant.attempt, grant.token, digest(DATA)), 0, DATA))
    rig.store.write(lambda w: leases.take_role(w, ROLE, "successor", 60.0, displace=True))
    before = rig.store.read(everything)
    with pytest.raises(RoleLost) as caught:
        WRITES[name](rig, grant)
    assert not isinstance(caught.value, StaleToken), "the agent is not to blame"
    assert rig.store.read(everything) == before
    assert rig.here.desk.role_lost.is_set()
