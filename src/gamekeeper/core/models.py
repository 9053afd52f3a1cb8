"""Models: immutable weights, and where each stands on its way to being champion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class ModelState(StrEnum):
    """`candidate` until a promotion decision; `promoted` models were champion once; both ends are final."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    REJECTED = "rejected"


MODEL_TRANSITIONS: Mapping[ModelState, frozenset[ModelState]] = {
    ModelState.CANDIDATE: frozenset({ModelState.PROMOTED, ModelState.REJECTED}),
    ModelState.PROMOTED: frozenset(),
    ModelState.REJECTED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Model:
    """A registered model. `parent_id` is `None` for a founding model only; `samples` are those it was trained on."""

    id: int
    line: str
    hash: str
    parent_id: int | None
    job_id: int
    state: ModelState
    steps: int
    samples: int
    loss: float | None
    created_at: float
    decided_at: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Champion:
    """The pointer of a line. `generation` counts its moves: 0 for the founding model."""

    line: str
    model_id: int
    hash: str
    generation: int
    since: float
