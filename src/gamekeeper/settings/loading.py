"""Reading, laying over one another and checking the settings.

Precedence, lowest first: defaults, the file, `GAMEKEEPER_*` variables, flags. A variable names a key by its path,
upper-cased, with two underscores between the parts: `GAMEKEEPER_COORDINATOR__PORT=8100`. Every value remembers where
it came from. An unknown key is an error that suggests the nearest known one, and thresholds that contradict each other
are refused at start instead of being met at run time.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as FilePath

from gamekeeper.core.errors import SettingsError
from gamekeeper.core.lines import Line
from gamekeeper.core.receipts import BUILT_IN_KINDS, JobKind
from gamekeeper.data.array_contract import Contract
from gamekeeper.settings import layers
from gamekeeper.settings.canonical import settings_hash
from gamekeeper.settings.findings import Findings, examine
from gamekeeper.settings.keys import DEFAULT, Layer, Origin, Path
from gamekeeper.settings.places import parse_key
from gamekeeper.settings.reading import FileText, Table, read_file
from gamekeeper.settings.schema import (
    AdmissionSection,
    AgentSection,
    ArtifactsSection,
    CoordinatorSection,
    DistributionSection,
    Document,
    JobParkingSection,
    RetentionSection,
    StoreSection,
)
from gamekeeper.settings.timings import Timings


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. `origins` maps each key that was set, as a path, to the place it was set in.

    `kinds` are the built-in kinds of jobs and those the settings declare.
    """

    data_dir: FilePath
    seed: int
    coordinator: CoordinatorSection
    store: StoreSection
    agent: AgentSection
    artifacts: ArtifactsSection
    retention: RetentionSection
    admission: AdmissionSection
    distribution: DistributionSection
    job_parking: JobParkingSection
    kinds: Mapping[str, JobKind]
    lines: Mapping[str, Line]
    contracts: Mapping[str, Contract]
    timings: Timings
    hash: str
    document: Document
    origins: Mapping[Path, Origin] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Where `key` ("coordinator.port") was set; "default" when nowhere."""
        return str(self.origin_of(parse_key(key)))

    def origin_of(self, path: Path) -> Origin:
        """Where the value at `path` was set."""
        return self.origins.get(path, DEFAULT)


def load(
    path: FilePath | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
) -> Settings:
    """Read, lay over one another and check all sources.

    `path` is the settings file (`None`: defaults only), `environment` defaults to the process's, `overrides` are
    texts "coordinator.port=8100", and `flags` maps dotted keys to values of options of their own; `None` values are
    skipped. A relative `data_dir` or `store.passfile` in the file is taken from the file's folder. Raises
    `SettingsError` naming place, key, cause and remedy.
    """
    return assembled(look(path, environment=environment, flags=flags, overrides=overrides))


def look(
    path: FilePath | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    overrides: Sequence[str] = (),
) -> Findings:
    """All that `load` reads, with everything that is wrong with it. Raises `SettingsError` for an unreadable file."""
    text = read_file(path) if path is not None else FileText({}, {})
    return _look(
        text,
        source=str(path) if path is not None else "",
        folder=path.parent if path is not None else FilePath(),
        environment=os.environ if environment is None else environment,
        flags=flags or {},
        overrides=overrides,
    )


def resolve(
    file_values: Table,
    *,
    source: str = "",
    folder: FilePath = FilePath(),
    environment: Mapping[str, str],
    flags: Mapping[str, object],
    overrides: Sequence[str] = (),
) -> Settings:
    """Lay decoded sources over one another and check them; `source` names the file in messages."""
    text = FileText(file_values, {})
    return assembled(
        _look(text, source=source, folder=folder, environment=environment, flags=flags, overrides=overrides)
    )


def _look(
    text: FileText,
    *,
    source: str,
    folder: FilePath,
    environment: Mapping[str, str],
    flags: Mapping[str, object],
    overrides: Sequence[str],
) -> Findings:
    stack = layers.Stack()
    problems: list[SettingsError] = []

    def origin_in_file(path: Path) -> Origin:
        line = text.lines.get(path)
        name = source or "file"
        return Origin(Layer.FILE, f"{name}:{line}" if line else name)

    stack.lay(_from_folder(text.values, folder), origin_in_file)
    assigned = layers.from_environment(environment, stack.values, problems.append)
    assigned += layers.from_flags(overrides, flags, problems.append)
    for one in assigned:
        stack.lay(layers.nested(one.path, one.value), lambda _, origin=one.origin: origin)  # type: ignore[misc]
    return examine(stack, source, folder, problems)


def _from_folder(values: Table, folder: FilePath) -> Table:
    """`values` with paths taken from the file's folder."""
    changed = dict(values)
    if isinstance(changed.get("data_dir"), str) and changed["data_dir"]:
        changed["data_dir"] = str(folder / str(changed["data_dir"]))
    store = changed.get("store")
    if isinstance(store, dict) and isinstance(store.get("passfile"), str) and store["passfile"]:
        changed["store"] = {**store, "passfile": str(folder / store["passfile"])}
    return changed


def assembled(found: Findings) -> Settings:
    """The settings in force. Raises the first of the problems that were found, if any."""
    document = found.usable()
    # Also the default is relative to the file.
    folder = FilePath() if ("data_dir",) in found.stack.origins else found.folder
    own = {name: section.to_kind(name) for name, section in document.kinds.items()}
    return Settings(
        data_dir=folder / document.data_dir,
        seed=document.seed,
        coordinator=document.coordinator,
        store=document.store,
        agent=document.agent,
        artifacts=document.artifacts,
        retention=document.retention,
        admission=document.admission,
        distribution=document.distribution,
        job_parking=document.job_parking,
        kinds={**BUILT_IN_KINDS, **own},
        lines={
            name: section.to_line(name, found.folder.resolve()) for name, section in document.lines.items()
        },
        contracts={name: Contract.from_mapping(section.contract) for name, section in document.lines.items()},
        timings=Timings.of(document.coordinator.lease_s),
        hash=settings_hash(document),
        document=document,
        origins=found.stack.origins,
    )
