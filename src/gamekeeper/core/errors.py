"""The errors a user may see. Each names what happened, and carries the remedy and an exit code.

GamekeeperError
├── UsageError            2  the request itself is malformed (command line, settings, body)
│   └── SettingsError     2  gamekeeper.toml, environment or flags
├── NotFound              1  a named thing does not exist
├── Unreachable           4  no coordinator answers
├── NotAllowed            4  token missing, wrong or without that right
├── Refused               5  a safety rule says no
│   ├── RoleHeld          5  another process holds the role (second coordinator)
│   ├── StaleToken        5  a fencing token was overtaken; the write changed nothing
│   └── IllegalTransition 5  a state machine does not know that step
├── Busy                  6  try again after `retry_after_s`
├── StorageFull           1  no room; nothing was written
└── Corrupt               1  stored bytes are not what they should be
"""

from __future__ import annotations


class GamekeeperError(Exception):
    """Root of all expected errors.

    `message` says what happened to which object and why; `remedy` the next thing to do.
    `code` is a stable kebab-case word for programs; `exit_code` what the command line ends with.
    """

    code = "error"
    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def as_json(self) -> dict[str, str]:
        """The error as a flat JSON object: code, message, remedy."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy}


class UsageError(GamekeeperError):
    """The request itself is malformed."""

    code = "usage"
    exit_code = 2


class SettingsError(UsageError):
    """gamekeeper.toml, the environment or a flag holds something that cannot be used."""

    code = "settings"


class NotFound(GamekeeperError):
    """A named thing does not exist."""

    code = "not-found"


class Unreachable(GamekeeperError):
    """No coordinator answers at the given address."""

    code = "unreachable"
    exit_code = 4


class NotAllowed(GamekeeperError):
    """The token is missing, wrong, or lacks the right for this call."""

    code = "not-allowed"
    exit_code = 4


class Refused(GamekeeperError):
    """A safety rule says no."""

    code = "refused"
    exit_code = 5


class RoleHeld(Refused):
    """Another live process holds the role."""

    code = "role-held"


class StaleToken(Refused):
    """The fencing token was overtaken; the write changed nothing."""

    code = "stale-token"


class IllegalTransition(Refused):
    """A state machine does not know that step."""

    code = "illegal-transition"


class Busy(GamekeeperError):
    """The coordinator asks to come back after `retry_after_s` seconds."""

    code = "busy"
    exit_code = 6

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: float = 1.0) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class StorageFull(GamekeeperError):
    """There is no room; nothing was written."""

    code = "storage-full"


class Corrupt(GamekeeperError):
    """Stored bytes are not what they should be."""

    code = "corrupt"


_BY_CODE: dict[str, type[GamekeeperError]] = {
    kind.code: kind
    for kind in (
        GamekeeperError, UsageError, SettingsError, NotFound, Unreachable, NotAllowed, Refused, RoleHeld,
        StaleToken, IllegalTransition, Busy, StorageFull, Corrupt,
    )
}  # fmt: skip


def from_json(document: dict[str, object]) -> GamekeeperError:
    """Rebuild an error from its JSON; an unknown code becomes a plain `GamekeeperError`.

    A "retry_after_s" in the document is kept by `Busy`, unless it is no sensible time to wait.
    """
    kind = _BY_CODE.get(str(document.get("code", "")), GamekeeperError)
    error = kind(str(document.get("message", "unknown error")), remedy=str(document.get("remedy", "")))
    wait = document.get("retry_after_s")
    if (
        isinstance(error, Busy)
        and isinstance(wait, int | float)
        and not isinstance(wait, bool)
        and 0 <= wait <= 3600
    ):
        error.retry_after_s = float(wait)
    return error
