"""Options that several commands share, and how a command gets from them to a coordinator."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gamekeeper.core.errors import UsageError

if TYPE_CHECKING:
    from gamekeeper.cli.coordinator_api import CoordinatorApi

CONFIG_NAME = "gamekeeper.toml"
CONFIG_VARIABLE = "GAMEKEEPER_CONFIG"
DATA_DIR_VARIABLE = "GAMEKEEPER_DATA_DIR"
URL_VARIABLE = "GAMEKEEPER_URL"
TOKEN_VARIABLE = "GAMEKEEPER_TOKEN"  # noqa: S105 - the name of a variable, not a secret
DEFAULT_DATA_DIR = Path("gamekeeper-data")
DEMO_DATA_DIR = Path("demo-data")

JsonOption = Annotated[
    bool, typer.Option("--json", help="Write JSON on stdout; errors become JSON on stderr.")
]
DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Data directory of the coordinator. Default: $GAMEKEEPER_DATA_DIR, else that of ./gamekeeper.toml,"
        " else ./gamekeeper-data, else ./demo-data.",
        show_default=False,
    ),
]

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="Settings file. Default: $GAMEKEEPER_CONFIG, else ./gamekeeper.toml.",
        show_default=False,
    ),
]
DataDirFlag = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Overrides data_dir of the settings.", show_default=False),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Overrides one key of the settings: coordinator.lease_s=20. May be given several times.",
        show_default=False,
    ),
]


def chosen_data_dir(given: Path | None) -> Path:
    """The data directory a reading command looks into; see `DataDirOption` for the order."""
    if given is not None:
        return given
    variable = os.environ.get(DATA_DIR_VARIABLE)
    if variable:
        return Path(variable)
    config = Path(os.environ.get(CONFIG_VARIABLE) or CONFIG_NAME)
    if config.exists():
        from gamekeeper.settings import read_document

        named = read_document(config).get("data_dir", str(DEFAULT_DATA_DIR))
        return config.parent / str(named)
    if not DEFAULT_DATA_DIR.exists() and DEMO_DATA_DIR.exists():
        return DEMO_DATA_DIR
    return DEFAULT_DATA_DIR


def connect(data_dir: Path | None) -> CoordinatorApi:
    """The coordinator of the data directory, or the one that $GAMEKEEPER_URL and $GAMEKEEPER_TOKEN name.

    Raises `Unreachable` when none is running and `NotAllowed` when the token cannot be read.
    """
    from gamekeeper.cli.coordinator_api import CoordinatorApi

    url = os.environ.get(URL_VARIABLE)
    if url and data_dir is None:
        token = os.environ.get(TOKEN_VARIABLE)
        if not token:
            raise UsageError(
                f"${URL_VARIABLE} is set, but ${TOKEN_VARIABLE} is not",
                remedy=f"set ${TOKEN_VARIABLE} to the coordinator's admin token",
            )
        return CoordinatorApi(url, token, started_with="gamekeeper up")
    return CoordinatorApi.of_data_dir(chosen_data_dir(data_dir))
