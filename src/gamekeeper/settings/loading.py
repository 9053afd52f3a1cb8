"""Reading, merging and checking the settings.

Precedence, lowest first: defaults, the file, `GAMEKEEPER_*` variables, flags. A variable names a key by its path,
upper-cased, with two underscores between the parts: `GAMEKEEPER_COORDINATOR__PORT=8100`. Every value remembers where
it came from. An unknown key is an error that suggests the nearest known one, and thresholds that contradict each other
are refused at start instead of being met at run time.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3
from pydantic import BaseModel, ValidationError

from gamekeeper.core.errors import SettingsError, UsageError
from gamekeeper.core.lines import Line
from gamekeeper.data.array_contract import Contract
from gamekeeper.policy.continuous_loop import reachability
from gamekeeper.settings.schema import (
    SECTION_TYPES,
    AgentSection,
    ArtifactsSection,
    CoordinatorSection,
    Document,
    LineSection,
)

FILE_NAME = "gamekeeper.toml"
ENV_PREFIX = "GAMEKEEPER_"
RESERVED_VARIABLES = frozenset(
    {
        "GAMEKEEPER_JOB_DIR",
        "GAMEKEEPER_CONFIG",
        "GAMEKEEPER_URL",
        "GAMEKEEPER_TOKEN",
        "GAMEKEEPER_LOG_JSON",
        "GAMEKEEPER_RUN",
        "GAMEKEEPER_STORE__URL",
    }
)
MAX_FILE_BYTES = 1 << 20

Table = dict[str, object]


@dataclass(frozen=True, slots=True)
class Timings:
    """All durations of the lease protocol, in seconds, derived from `lease_s` alone.

    An agent beats every `beat_s`; three beats may fail before its lease ends. It stops its own jobs `margin_s` before
    the lease ends on its clock, so that a job is dead before the coordinator may grant it again.
    """

    lease_s: float
    beat_s: float
    margin_s: float
    reap_every_s: float

    @staticmethod
    def of(lease_s: float) -> Timings:
        """The timings for one `lease_s`."""
        return Timings(lease_s, lease_s / 4, lease_s / 10, min(1.0, lease_s / 10))

    def check(self) -> None:
        """Raise `SettingsError` unless every step leaves time for the one that depends on it."""
        if (
            not 0
            < self.reap_every_s
            <= self.beat_s
            < 3 * self.beat_s
            < self.lease_s - self.margin_s
            < self.lease_s
        ):
            raise SettingsError(
                f"coordinator.lease_s = {self.lease_s} leaves no room for three beats before the lease ends",
                remedy="use a lease_s of at least 2 seconds",
            )


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in force. `origins` maps each key that was set to the place it was set in."""

    data_dir: Path
    seed: int
    coordinator: CoordinatorSection
    agent: AgentSection
    artifacts: ArtifactsSection
    lines: Mapping[str, Line]
    contracts: Mapping[str, Contract]
    timings: Timings
    hash: str
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Where `key` ("coordinator.port") was set; "default" when nowhere."""
        return self.origins.get(key, "default")


def load(
    path: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Read, merge and check all sources.

    `path` is the settings file (`None`: defaults only), `environment` defaults to the process's, `flags` maps
    dotted keys ("coordinator.port") to values; `None` values are skipped. A relative `data_dir` in the file is taken
    from the file's folder. Raises `SettingsError` naming file, key, cause and remedy.
    """
    file_values = read_document(path) if path is not None else {}
    return resolve(
        file_values,
        source=str(path) if path is not None else "",
        folder=path.parent if path is not None else Path(),
        environment=os.environ if environment is None else environment,
        flags=flags or {},
    )


def read_document(path: Path) -> Table:
    """The decoded TOML of `path`, unchecked beyond its syntax."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise SettingsError(
            f"{path} does not exist", remedy="write one with `gamekeeper init`, or name another with --config"
        ) from None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", remedy="check its permissions"
        ) from None
    if len(raw) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is larger than {MAX_FILE_BYTES} bytes", remedy="is this the right file?")
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}", remedy="correct that line") from None


def resolve(
    file_values: Table,
    *,
    source: str = "",
    folder: Path = Path(),
    environment: Mapping[str, str],
    flags: Mapping[str, object],
) -> Settings:
    """Merge decoded sources into checked settings; `source` names the file in messages."""
    merged: Table = {}
    origins: dict[str, str] = {}
    if isinstance(file_values.get("data_dir"), str):
        file_values = {**file_values, "data_dir": str(folder / str(file_values["data_dir"]))}
    _merge(merged, file_values, origins, source or "file")
    for variable, path, text in _variables(environment):
        _merge(merged, _nested(path, _literal(path, text)), origins, variable)
    for key, value in flags.items():
        if value is not None:
            plain = str(value) if isinstance(value, Path) else value
            _merge(merged, _nested(key.split("."), plain), origins, f"flag {key}")
    try:
        document = Document.model_validate(merged, strict=True)
    except ValidationError as error:
        raise _explain(error, merged, origins) from None
    except RecursionError:
        raise SettingsError(
            f"{source or 'settings'}: nested too deeply", remedy="flatten the tables"
        ) from None
    return _assemble(document, origins, source, folder)


def _assemble(document: Document, origins: dict[str, str], source: str, folder: Path) -> Settings:
    timings = Timings.of(document.coordinator.lease_s)
    lines: dict[str, Line] = {}
    contracts: dict[str, Contract] = {}
    try:
        timings.check()
        for name, section in document.lines.items():
            _check_line(name, section)
            contracts[name] = _contract(name, section)
            lines[name] = section.to_line(name, folder.resolve())
            _check_reachable(lines[name])
    except SettingsError as error:
        raise SettingsError(
            f"{source}: {error.message}" if source else error.message, remedy=error.remedy
        ) from None
    return Settings(
        data_dir=Path(document.data_dir),
        seed=document.seed,
        coordinator=document.coordinator,
        agent=document.agent,
        artifacts=document.artifacts,
        lines=lines,
        contracts=contracts,
        timings=timings,
        hash=_hash(document),
        origins=origins,
    )


def _check_line(name: str, section: LineSection) -> None:
    """Refuse thresholds that contradict each other."""
    promotion, training, evaluation = section.promotion, section.training, section.evaluation
    where = f"lines.{name}"
    if promotion.elo0 >= promotion.elo1:
        raise SettingsError(
            f"{where}.promotion: elo0 = {promotion.elo0} is not below elo1 = {promotion.elo1}",
            remedy="elo0 is the gain that is not worth promoting, elo1 the one that is; raise elo1",
        )
    if training.min_new_samples > training.window_samples:
        raise SettingsError(
            f"{where}.training: min_new_samples = {training.min_new_samples} exceeds"
            f" window_samples = {training.window_samples}, so samples would never be trained on",
            remedy="raise window_samples or lower min_new_samples",
        )
    if evaluation.pairs_per_job > promotion.max_pairs:
        raise SettingsError(
            f"{where}: evaluation.pairs_per_job = {evaluation.pairs_per_job} exceeds"
            f" promotion.max_pairs = {promotion.max_pairs}",
            remedy="lower pairs_per_job or raise max_pairs",
        )


def _contract(name: str, section: LineSection) -> Contract:
    try:
        return Contract.from_mapping(section.contract)
    except UsageError as error:
        raise SettingsError(f"lines.{name}.contract: {error.message}", remedy=error.remedy) from None


def _check_reachable(line: Line) -> None:
    problems = reachability(line)
    if problems:
        raise SettingsError(
            f"lines.{line.name}: the loop could never turn: {'; '.join(problems)}",
            remedy="change the named settings so that every stage can be reached from an empty store",
        )


def _hash(document: Document) -> str:
    """BLAKE3 of what governs the loop; where it is stored and served does not change it."""
    governing = document.model_dump(mode="json", include={"seed", "artifacts", "lines"})
    governing["lease_s"] = document.coordinator.lease_s
    return blake3(json.dumps(governing, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _merge(
    into: Table, values: Mapping[str, object], origins: dict[str, str], origin: str, at: str = ""
) -> None:
    for key, value in values.items():
        path = f"{at}.{key}" if at else key
        present = into.get(key)
        if isinstance(value, dict) and (present is None or isinstance(present, dict)):
            nested = present if isinstance(present, dict) else {}
            into[key] = nested
            origins.setdefault(path, origin)
            _merge(nested, value, origins, origin, path)
        else:
            into[key] = value
            origins[path] = origin


def _nested(path: list[str], value: object) -> Table:
    document: object = value
    for part in reversed(path):
        document = {part: document}
    assert isinstance(document, dict)  # noqa: S101 - a path has at least one part
    return document


def _variables(environment: Mapping[str, str]) -> Iterator[tuple[str, list[str], str]]:
    for variable in sorted(environment):
        if variable.startswith(ENV_PREFIX) and variable not in RESERVED_VARIABLES:
            parts = variable.removeprefix(ENV_PREFIX).lower().split("__")
            yield variable, parts, environment[variable]


def _literal(path: list[str], text: str) -> object:
    """The value a variable's text stands for: text where the key holds text, else a TOML literal."""
    if _is_text(path):
        return text
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _is_text(path: list[str]) -> bool:
    model: type[BaseModel] = Document
    for part in path[:-1]:
        section = SECTION_TYPES.get(part) if model is Document else None
        if section is None:
            return False
        model = section
    known = model.model_fields.get(path[-1])
    return known is not None and known.annotation in (str, str | None)


def _explain(error: ValidationError, merged: Table, origins: Mapping[str, str]) -> SettingsError:
    """The first problem in full, and how many more there are."""
    problems = error.errors(include_url=False, include_context=False)
    first = problems[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join(path)
    origin = next(
        (origins[".".join(path[:n])] for n in range(len(path), 0, -1) if ".".join(path[:n]) in origins), ""
    )
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    place = f"{origin}: " if origin else ""
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path[-1], known_keys(path[:-1]), n=1, cutoff=0.5)
        remedy = (
            f"did you mean {near[0]!r}?" if near else f"known keys here: {', '.join(known_keys(path[:-1]))}"
        )
        return SettingsError(f"{place}unknown key {key}{more}", remedy=remedy)
    if first["type"] == "missing":
        return SettingsError(
            f"{place}{key} is missing{more}", remedy="add it; `gamekeeper init` writes an example"
        )
    reason = first["msg"][:1].lower() + first["msg"][1:]
    return SettingsError(
        f"{place}{key} = {_shown(merged, path)} cannot be used: {reason}{more}",
        remedy="correct the value; `gamekeeper init` writes a commented example",
    )


def known_keys(path: list[str]) -> list[str]:
    """The keys a table of the document may hold; empty where any key is allowed."""
    model: type[BaseModel] = Document
    parts = list(path)
    while parts:
        part = parts.pop(0)
        if model is Document and part == "lines" and parts:
            parts.pop(0)
            model = LineSection
            continue
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return sorted(model.model_fields)


def _shown(merged: Table, path: list[str]) -> str:
    value: object = merged
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        else:
            break
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return f"{value!r:.60}"
