"""The training stage: continue from the parent's weights on the newest samples."""

from __future__ import annotations

import sys

import numpy as np

from gamekeeper.client import ClientError, Job, run
from gamekeeper.demo import net
from gamekeeper.demo.training import Samples, Schedule, Trainer, join, read_shard


def stage(job: Job) -> None:
    """Train for the set number of steps and hand in the model.

    Asked to stop, it hands in nothing: a schedule cut short leaves the learning rate high and a model worse than
    its data deserves, and the whole job lasts seconds.
    """
    parent = job.input("model")
    weights = net.load(parent.path)
    schedule = Schedule(
        steps=job.parameter("steps", int),
        batch=job.parameter("batch", int, 512),
        rate=job.parameter("rate", float, 0.002),
        decay=job.parameter("decay", float, 0.0001),
        value_weight=job.parameter("value_weight", float, 1.0),
    )
    if schedule.steps < 1 or schedule.batch < 1 or not 0.0 < schedule.rate < 1.0:
        raise ClientError(f"{schedule} is no training schedule.", "set steps, batch and rate above 0.")
    window = _read_window(job)
    trainer = Trainer(weights, window, schedule, np.random.default_rng(job.seed))
    recent: list[float] = []
    while trainer.steps < schedule.steps:
        if job.should_stop():
            raise ClientError(
                f"Asked to stop after {trainer.steps} of {schedule.steps} steps.",
                "nothing is handed in; try it again.",
            )
        loss = trainer.step()
        recent = [*recent[-99:], loss.total]
        job.progress(
            trainer.steps, "training", loss=loss.total, policy_loss=loss.policy, value_loss=loss.value
        )
    mean = float(np.mean(recent))
    if not np.isfinite(mean):
        raise ClientError(
            f"Training diverged: the loss is {mean}.", "lower the learning rate or look at the shards."
        )
    model = job.publish_model(
        "model.npz",
        lambda file: net.save(trainer.weights, file),
        architecture=net.architecture(trainer.weights),
        parent=parent.hash,
        steps=trainer.steps,
        loss=mean,
        weights=net.count_weights(trainer.weights),
    )
    job.hand_in(steps=trainer.steps, samples=len(window), loss=mean, model=model, parent=parent.hash)


def _read_window(job: Job) -> Samples:
    shards = job.inputs("shards")
    if not shards:
        raise ClientError(
            "There is no shard to train on.", "a training job needs at least one input 'shards'."
        )
    window = join([read_shard(shard.path) for shard in shards], job.wanted("samples", int))
    if len(window) == 0:
        raise ClientError("The shards hold no sample.", "the data contract should refuse empty shards.")
    return window


if __name__ == "__main__":
    sys.exit(run(stage))
