"""The founding stage: a network with random weights, announced as such, from which a line starts."""

from __future__ import annotations

import sys

import numpy as np

from gamekeeper.client import Job, run
from gamekeeper.demo import net


def stage(job: Job) -> None:
    """Make the founding model. The same seed gives the same bytes."""
    rng = np.random.default_rng(job.seed)
    weights = net.new_weights(rng, job.parameter("width", int), job.parameter("layers", int))
    count = net.count_weights(weights)
    model = job.publish_model(
        "founder.npz",
        lambda file: net.save(weights, file),
        architecture=net.architecture(weights),
        parent=None,
        steps=0,
        loss=None,
        weights=count,
    )
    job.progress(1, "random weights")
    job.hand_in(model=model, weights=count)


if __name__ == "__main__":
    sys.exit(run(stage))
