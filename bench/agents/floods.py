"""Callers that press while agents beat: people's questions, uploads, and strangers with no valid token."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

from swarm import Swarm

AT_ONCE = 64
CHUNK = bytes(1 << 20)


@contextlib.asynccontextmanager
async def flooding(kind: str, swarm: Swarm, admin: str) -> AsyncIterator[Counter[int]]:
    """Keep `AT_ONCE` callers of a kind calling without a pause; counts of HTTP statuses (0: no answer)."""
    counts: Counter[int] = Counter()
    tasks = [asyncio.create_task(_press(kind, swarm, admin, counts)) for _ in range(AT_ONCE)]
    try:
        yield counts
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _press(kind: str, swarm: Swarm, admin: str, counts: Counter[int]) -> None:
    place = f"/v1/attempts/1/1/artifacts/{'a' * 64}?offset=0"
    method, path, token, body = {
        "people": ("GET", "/v1/status", admin, b""),
        "uploads": ("PUT", place, admin, CHUNK),
        "strangers": ("POST", "/v1/agent/beat", "nobody", b"{}"),
    }[kind]
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    while True:
        try:
            reader, writer = await asyncio.open_connection(swarm.host, swarm.port)
        except OSError:
            counts[0] += 1
            await asyncio.sleep(0.1)
            continue
        try:
            writer.write(head.encode() + body)
            answer = await reader.read()
            counts[int(answer[9:12] or 0)] += 1
        except (OSError, ValueError):
            counts[0] += 1
        finally:
            writer.close()
        await asyncio.sleep(0.01)
