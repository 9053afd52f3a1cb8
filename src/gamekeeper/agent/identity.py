"""Who this node is, and that only one agent at a time says so."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gamekeeper.agent.attempt_dir import decode, read_plain
from gamekeeper.core.errors import Corrupt, NotAllowed, RoleHeld, UsageError

_IDENTITY_BYTES = 64 << 10
_TOKEN_BYTES = 4096


@dataclass(frozen=True, slots=True, repr=False)
class NodeIdentity:
    """The node's id, and the credential that proves it (never shown)."""

    node_id: str
    credential: str

    def __repr__(self) -> str:
        return f"NodeIdentity({self.node_id!r})"


@contextmanager
def agent_lock(folder: Path) -> Iterator[None]:
    """Hold the agent's folder for this process. Raises `RoleHeld` when another one has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "agent.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise RoleHeld(
                f"another agent (process {holder}) uses {folder}",
                remedy="end that one, or give this agent a folder of its own",
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def load_identity(folder: Path) -> NodeIdentity | None:
    """The identity that was issued to this node, or `None` before it was. Raises `Corrupt`."""
    path = folder / "identity.json"
    try:
        document = decode(read_plain(path, _IDENTITY_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, UsageError) as error:
        raise Corrupt(f"{path} cannot be read: {error}", remedy="remove it; the node enrols again") from None
    if isinstance(document, dict):
        node_id, credential = document.get("node_id"), document.get("credential")
        if isinstance(node_id, str) and isinstance(credential, str) and node_id and credential:
            os.chmod(path, 0o600)
            return NodeIdentity(node_id, credential)
    raise Corrupt(f"{path} holds no identity", remedy="remove it; the node enrols again")


def save_identity(folder: Path, identity: NodeIdentity) -> None:
    """Keep the identity, readable by this user only, durable before it is used. Raises `OSError`."""
    part = folder / ".identity.json.part"
    text = json.dumps({"node_id": identity.node_id, "credential": identity.credential}) + "\n"
    part.unlink(missing_ok=True)
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(part, folder / "identity.json")


def read_join_token(path: Path) -> str:
    """The token that lets a machine enrol. Raises `NotAllowed` when there is none."""
    try:
        token = read_plain(path, _TOKEN_BYTES).decode("ascii").strip()
    except (OSError, UsageError, UnicodeDecodeError) as error:
        raise NotAllowed(
            f"the join token {path} cannot be read: {error}",
            remedy="copy tokens/join.token from the coordinator's data folder",
        ) from None
    if not token:
        raise NotAllowed(f"the join token {path} is empty")
    return token
