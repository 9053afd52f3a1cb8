"""Watches over running attempts: their progress, their sealed files, their end, and that a stop comes to an end."""

from __future__ import annotations

from dataclasses import replace

import anyio
import anyio.to_thread
import structlog
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectSendStream

from gamekeeper.agent.attempt_dir import AttemptDir, ProcessRecord
from gamekeeper.agent.config import AgentConfig
from gamekeeper.agent.endings import Exit
from gamekeeper.agent.input_cache import free_bytes
from gamekeeper.agent.messages import Event, FileSealed, FileUnusable, ProcessEnded, Progressed, SealedFile
from gamekeeper.agent.process_owner import ProcessOwner
from gamekeeper.agent.spool import scan
from gamekeeper.core.jobs import EndReason

STOP_SLACK_S = 20.0
_log = structlog.get_logger("gamekeeper.agent")


class ProcessWatch:
    """One task for each running attempt; it tells the core what it sees."""

    def __init__(
        self, config: AgentConfig, owner: ProcessOwner, events: MemoryObjectSendStream[Event]
    ) -> None:
        self._config = config
        self._owner = owner
        self._events = events
        self._ended: dict[int, anyio.Event] = {}

    def begin(self, tasks: TaskGroup, place: AttemptDir, record: ProcessRecord) -> None:
        """Watch one attempt until nothing of it runs. All its files are announced before its end is."""
        self._ended[place.attempt] = anyio.Event()
        tasks.start_soon(self._keep, place, record)

    async def _keep(self, place: AttemptDir, record: ProcessRecord) -> None:
        seen: set[str] = set()
        last: Progressed | None = None
        while True:
            gone = await self._owner.gone(place, record, self._config.scan_s)
            found, progress = await anyio.to_thread.run_sync(_look, place, frozenset(seen))
            for file in found:
                seen.add(file.name if isinstance(file, FileUnusable) else file.file.name)
                self._events.send_nowait(file)
            if progress is not None and progress != last:
                self._events.send_nowait(progress)
                last = progress
            if gone:
                break
        exit_ = await anyio.to_thread.run_sync(self._settle, place)
        _log.info("ended", attempt=place.attempt, cause=exit_.cause, exit_code=exit_.exit_code)
        self._ended.pop(place.attempt).set()
        self._events.send_nowait(ProcessEnded(place.attempt, exit_))

    def _settle(self, place: AttemptDir) -> Exit:
        exit_ = self._owner.settle(place)
        return replace(exit_, short_of_disk=free_bytes(place.root) < self._config.free_bytes_least)

    async def stop(self, place: AttemptDir, reason: EndReason) -> None:
        """Begin the ladder, and see to it that it ends."""
        ended = self._ended.get(place.attempt)
        record = place.processes()
        if ended is None or record is None:
            return
        _log.info("stopping", attempt=place.attempt, reason=reason.value)
        grace_s = (await anyio.to_thread.run_sync(place.grant)).grace_s
        await anyio.to_thread.run_sync(self._owner.stop, place, record)
        with anyio.move_on_after(grace_s + STOP_SLACK_S):
            await ended.wait()
            return
        _log.warning("the warden does not end", attempt=place.attempt)
        await anyio.to_thread.run_sync(self._owner.put_down, place, record)


def _look(
    place: AttemptDir, seen: frozenset[str]
) -> tuple[list[FileSealed | FileUnusable], Progressed | None]:
    files: list[FileSealed | FileUnusable] = [
        FileSealed(place.attempt, found)
        if isinstance(found, SealedFile)
        else FileUnusable(place.attempt, found.name, found.why)
        for found in scan(place.outbox, seen)
    ]
    return files, place.progress()
