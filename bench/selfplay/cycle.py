"""The loop of self-play, training, evaluation and promotion in one process, to tune the demo and to measure it.

    PYTHONPATH=src OMP_NUM_THREADS=1 python bench/selfplay/cycle.py --promotions 3 --seed 1

Times are CPU seconds of one core; a real run with two slots plays and evaluates on both. Promotion here is a
sequential test on pair scores with a normal approximation of the log-likelihood ratio, elo0 = 0.
"""

from __future__ import annotations

import argparse
import math
import time
import tomllib
from pathlib import Path

import numpy as np

import gamekeeper.demo
from gamekeeper.demo import net
from gamekeeper.demo.arena import AlphaBetaPlayer, NetPlayer, PairResult, Pairs, Player, RandomPlayer
from gamekeeper.demo.net import Net, Weights
from gamekeeper.demo.search import Search
from gamekeeper.demo.selfplay import Style, Table
from gamekeeper.demo.training import Samples, Schedule, Trainer, join


def play_pairs(candidate: Player, opponent: Player, first_pair: int, count: int) -> list[PairResult]:
    pairs = Pairs(candidate, opponent, first_pair, count)
    while pairs.advance():
        pass
    return pairs.results()


def chances(elo: float) -> float:
    return 1.0 / (1.0 + math.pow(10.0, -elo / 400.0))


def likelihood_ratio(scores: list[float], elo1: float) -> float:
    """Generalised log-likelihood ratio of pair means (0 to 1), normal approximation, elo0 = 0."""
    mean = sum(scores) / len(scores)
    variance = sum((s - mean) ** 2 for s in scores) / len(scores) + 0.25 / len(scores) ** 2
    low, high = 0.5, chances(elo1)
    return len(scores) * (high - low) * (2 * mean - low - high) / (2 * variance)


def elo_interval(results: list[PairResult]) -> str:
    scores = np.array([(r.first + r.second) / 2 for r in results])
    mean, error = scores.mean(), 1.96 * scores.std() / math.sqrt(len(scores))
    clip = [min(max(x, 0.001), 0.999) for x in (mean - error, mean, mean + error)]
    low, value, high = (-400 * math.log10(1 / x - 1) for x in clip)
    return f"{value:+.0f} [{low:+.0f}, {high:+.0f}]"


def main() -> None:
    settings = tomllib.loads((Path(gamekeeper.demo.__file__).parent / "connect4.toml").read_text())
    line = settings["lines"]["connect4"]
    found, play, train, judge = (line[k]["parameters"] for k in ("found", "selfplay", "train", "evaluate"))
    parser = argparse.ArgumentParser()
    parser.add_argument("--promotions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cycles", type=int, default=20)
    for table, prefix in ((found, "found"), (play, "play"), (train, "train"), (judge, "judge")):
        for key, value in table.items():
            parser.add_argument(f"--{prefix}-{key}", type=type(value), default=value)
    parser.add_argument("--games", type=int, default=line["selfplay"]["wanted"]["games"])
    parser.add_argument("--new-samples", type=int, default=line["training"]["min_new_samples"])
    parser.add_argument("--window", type=int, default=line["training"]["window_samples"])
    parser.add_argument("--pairs", type=int, default=line["evaluation"]["pairs_per_job"])
    parser.add_argument("--elo1", type=float, default=line["promotion"]["elo1"])
    parser.add_argument("--max-pairs", type=int, default=line["promotion"]["max_pairs"])
    parser.add_argument("--rating-pairs", type=int, default=100)
    cycle(parser.parse_args())


def cycle(a: argparse.Namespace) -> None:
    rng = np.random.default_rng(a.seed)
    start = time.process_time()
    founder = net.new_weights(rng, a.found_width, a.found_layers)
    champion: Weights = founder
    shards: list[Samples] = []
    promotions = generation = 0
    style = Style(
        Search(a.play_simulations, a.play_exploration, noise=a.play_noise),
        a.play_opening_plies, a.play_warm_plies, a.play_search_share,
    )  # fmt: skip
    judge_search = Search(a.judge_simulations, a.judge_exploration)
    schedule = Schedule(a.train_steps, a.train_batch, a.train_rate, a.train_decay, a.train_value_weight)
    while promotions < a.promotions and generation < a.cycles:
        generation += 1
        fresh, t0, evaluations, jobs = 0, time.process_time(), 0, 0
        network = Net(champion)
        while fresh < a.new_samples:
            table = Table(network, style, a.games, rng)
            while table.advance():
                pass
            samples, _ = table.samples()
            shards.append(samples)
            fresh += len(samples)
            evaluations += table.evaluations
            jobs += 1
        t1 = time.process_time()
        trainer = Trainer(champion, join(shards, a.window), schedule, rng)
        losses = [trainer.step() for _ in range(schedule.steps)][-50:]
        t2 = time.process_time()
        candidate = NetPlayer(Net(trainer.weights), judge_search)
        results: list[PairResult] = []
        ratio = 0.0
        while len(results) < a.max_pairs and abs(ratio) < math.log(19):
            results += play_pairs(candidate, NetPlayer(network, judge_search), len(results), a.pairs)
            ratio = likelihood_ratio([(r.first + r.second) / 2 for r in results], a.elo1)
        t3 = time.process_time()
        promoted = ratio >= math.log(19)
        if promoted:
            champion, promotions = trainer.weights, promotions + 1
        policy, value = np.mean([x.policy for x in losses]), np.mean([x.value for x in losses])
        report = [
            f"{generation}: {jobs} jobs, {fresh} samples, {fresh / (t1 - t0):.0f} positions/s",
            f"{evaluations / (t1 - t0):.0f} evaluations/s, {t1 - t0:.1f} s | train {t2 - t1:.1f} s",
            f"policy {policy:.3f} value {value:.3f} | {len(results)} pairs {t3 - t2:.1f} s {elo_interval(results)}",
            f"{'PROMOTED' if promoted else 'rejected'} | {t3 - start:.0f} s",
        ]
        print(", ".join(report), flush=True)
    player = NetPlayer(Net(champion), judge_search)
    for name, opponent in (
        ("founder", NetPlayer(Net(founder), judge_search)),
        ("random", RandomPlayer()),
        ("alphabeta:4", AlphaBetaPlayer(4)),
    ):
        if a.rating_pairs:
            print(
                f"champion against {name}: {elo_interval(play_pairs(player, opponent, 5000, a.rating_pairs))}",
                flush=True,
            )


if __name__ == "__main__":
    main()
