"""The evaluation stage: game pairs of a candidate against another model, itself, or a fixed opponent."""

from __future__ import annotations

import json
import sys
from typing import BinaryIO

from gamekeeper.client import ClientError, Job, run
from gamekeeper.demo import net
from gamekeeper.demo.arena import AlphaBetaPlayer, NetPlayer, PairResult, Pairs, Player, RandomPlayer
from gamekeeper.demo.net import Net
from gamekeeper.demo.search import Search

DEPTH_MAX = 6


def stage(job: Job) -> None:
    """Play the wanted pairs and hand in every score with the hash of the games.

    Asked to stop, it hands in nothing: the games over first are the short ones, and scores of those alone would
    bias the test they feed.
    """
    wanted, first_pair = job.wanted("pairs", int), job.wanted("first_pair", int)
    if wanted < 1 or first_pair < 0:
        raise ClientError(
            f"{wanted} pairs from number {first_pair} are wanted.", "ask for at least one pair from 0 up."
        )
    search = Search(job.parameter("simulations", int), job.parameter("exploration", float, 1.0))
    candidate = NetPlayer(Net(net.load(job.input("candidate").path)), search)
    pairs = Pairs(candidate, _opponent(job, candidate, search), first_pair, wanted)
    while pairs.advance():
        job.progress(pairs.finished, "playing")
        if job.should_stop():
            raise ClientError(
                f"Asked to stop with {pairs.finished} games finished.", "nothing is handed in; try it again."
            )
    results = pairs.results()
    job.publish_matches("matches.ndjson", lambda file: write_matches(file, results), pairs=len(results))
    job.hand_in(
        games=2 * len(results),
        pairs=[[result.pair, result.first, result.second, result.replay] for result in results],
    )


def write_matches(file: BinaryIO, results: list[PairResult]) -> None:
    """One JSON object a line for each pair: its number, the candidate's scores, and both games as columns."""
    for result in results:
        row = {
            "pair": result.pair,
            "first": result.first,
            "second": result.second,
            "games": list(result.games),
        }
        file.write(json.dumps(row).encode() + b"\n")


def _opponent(job: Job, candidate: Player, search: Search) -> Player:
    name = job.wanted("opponent", str)
    if name == "model":
        return NetPlayer(Net(net.load(job.input("opponent").path)), search)
    if name == "self":
        return candidate
    if name == "random":
        return RandomPlayer()
    kind, _, depth = name.partition(":")
    if kind == "alphabeta" and depth.isascii() and depth.isdigit() and 1 <= int(depth) <= DEPTH_MAX:
        return AlphaBetaPlayer(int(depth))
    raise ClientError(
        f"There is no opponent {name!r}.",
        f"choose model, self, random or alphabeta:DEPTH with a depth of 1 to {DEPTH_MAX}.",
    )


if __name__ == "__main__":
    sys.exit(run(stage))
