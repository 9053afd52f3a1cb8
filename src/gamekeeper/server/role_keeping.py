"""Winning the coordinator's role, and keeping it.

There is no election: the role is a lease in the store. Whoever finds it free or run out takes it under a greater epoch;
from that moment on every write under an earlier epoch is refused, whether or not its writer knows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from gamekeeper.core.clock import Clock
from gamekeeper.core.errors import Busy, GamekeeperError, Refused, RoleHeld, StaleToken
from gamekeeper.runtime.daemon import Hint
from gamekeeper.runtime.telemetry import logger
from gamekeeper.server.coordinator import Coordinator
from gamekeeper.server.desk import ROLE
from gamekeeper.server.front import Front
from gamekeeper.server.principals import ADMIN_TOKEN, JOIN_TOKEN, same_hash, secret_hash
from gamekeeper.store import inventory, leases
from gamekeeper.store.engine import Store
from gamekeeper.store.leases import Role
from gamekeeper.store.session import Reading, Writing

LOOK_S = 0.5
LOOK_SOONEST_S = 0.05


async def win_role(
    store: Store, front: Front, wake: Hint, tokens: dict[str, str], take: Callable[[Writing], int]
) -> int:
    """Stand by until the role is free, then take it: its epoch.

    Looks when the other's lease runs out, twice a second at least, and at once when `wake` is signalled. Raises
    `Refused` when the role is held by a coordinator with other tokens than this one: agents could not go over to it.
    """
    log = logger("coordinator")
    while True:
        wait = LOOK_S
        try:
            held, left = await store.aread(_look)
            if held is None:
                return await store.awrite(take)
            if front.held_by != held.holder:
                await store.aread(partial(_check_tokens, tokens=tokens, held=held))
                front.held_by = held.holder
                log.info("standing by", role=ROLE, held_by=held.holder, epoch=held.epoch)
            wait = min(LOOK_S, max(LOOK_SOONEST_S, left))
        except RoleHeld:
            pass  # Another one was quicker; the next look says who.
        except Busy as error:
            log.warning("the store does not let us look", error=error.message)
        await wake.wait(store.clock, wait)


def _look(r: Reading) -> tuple[Role | None, float]:
    held = leases.holder(r, ROLE)
    return held, 0.0 if held is None else held.expires_at - r.now


def _check_tokens(r: Reading, tokens: dict[str, str], held: Role) -> None:
    for name in (ADMIN_TOKEN, JOIN_TOKEN):
        stored = inventory.token_hash(r, name)
        if stored is not None and not same_hash(stored, secret_hash(tokens[name])):
            raise Refused(
                f"the {name} token in this data folder is not the one of the coordinator that runs ({held.holder})",
                remedy="let both coordinators share one data folder, or copy its folder tokens/ to this one",
            )


async def keep_role(coordinator: Coordinator) -> None:
    """Renew the role until it is lost.

    After a pause of this process, or a leap of the store's clock, agents get a whole lease again before any is judged.
    """
    desk, timings = coordinator.desk, coordinator.desk.settings.timings
    clock: Clock = desk.clock
    renewed, told = clock.monotonic(), clock.now()
    while True:
        await clock.sleep(timings.beat_s)
        now = clock.monotonic()
        paused = now - renewed > 2 * timings.beat_s
        renewed = now
        try:
            await desk.store.awrite(lambda w: leases.renew_role(w, ROLE, desk.epoch, timings.lease_s))
        except StaleToken:
            desk.role_lost.set()
            return
        except GamekeeperError as error:
            # A full disk, say, or a server that restarts. Until another takes the role, it is renewed late.
            logger("coordinator").warning("the role was not renewed", error=error.message)
        leapt = clock.now() - told > 2 * timings.beat_s + max(0.0, clock.monotonic() - now)
        told = clock.now()
        if paused or leapt:
            coordinator.serving_since = told
