"""What every daemon of a role needs: the store, the one executor, and the epoch its effects carry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from gamekeeper.core.decisions import Decision
from gamekeeper.runtime.executor import Executor, Outcome
from gamekeeper.store.engine import Store


@dataclass(frozen=True, slots=True)
class Duty:
    """The holder of a role at work."""

    store: Store
    executor: Executor
    epoch: int

    def applying(
        self, after: Callable[[Sequence[Outcome]], Awaitable[None] | None]
    ) -> Callable[[Decision], Awaitable[None]]:
        """A daemon's last step: record and apply a decision, then give hints by what came of it."""

        async def apply(decision: Decision) -> None:
            following = after(await self.executor.run(decision, self.epoch))
            if following is not None:
                await following

        return apply
