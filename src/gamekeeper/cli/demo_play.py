"""Playing a model of a data directory: a person at the terminal, or positions from a program."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from gamekeeper.cli.subjects import MIN_PREFIX
from gamekeeper.core.errors import Corrupt, NotFound, UsageError

if TYPE_CHECKING:
    from gamekeeper.demo.net import Net
    from gamekeeper.store.session import Reading

LINE = "connect4"
LONGEST_LINE = 4096
RULES = "You are X. Type a column, 0 to 6, to drop a piece; q to leave."


@dataclass(frozen=True, slots=True)
class Found:
    """A model to play: its number, hash and verified file."""

    id: int
    hash: str
    path: Path


def run(data_dir: Path, *, model: str | None, simulations: int, stdin: bool, second: bool) -> None:
    """Play until the input ends."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    found = find(data_dir, model)
    from gamekeeper.demo import net

    player = net.Net(net.load(found.path))
    if stdin:
        answer_lines(sys.stdin.buffer, sys.stdout, player, simulations)
    else:
        sys.stderr.write(
            f"model {found.id} ({found.hash[:8]}) of {data_dir}, {simulations} search steps a move\n"
        )
        converse(sys.stdin, sys.stdout, player, simulations, second=second)


def find(data_dir: Path, wanted: str | None) -> Found:
    """The champion, or the model with this number or unique hash prefix; its file is hashed before it is played.

    Reads the data directory only: the coordinator may be running or gone. Raises `NotFound` or `Corrupt`.
    """
    store = data_dir / "gamekeeper.db"
    if not store.is_file():
        raise NotFound(
            f"{data_dir} holds no demo", remedy="make one with `gamekeeper demo`, or name it with --data-dir"
        )
    with reading(store) as r:
        number, digest = _chosen(r, data_dir, wanted)
    path = data_dir / "artifacts" / "blake3" / digest[:2] / digest
    _check(path, number, digest)
    return Found(number, digest, path)


@contextmanager
def reading(store: Path) -> Iterator[Reading]:
    """A snapshot of a store that another process may be writing, or that lies where nothing can be written."""
    from gamekeeper.core.clock import SystemClock
    from gamekeeper.store.session import Reading
    from gamekeeper.store.sqlite import SqliteLink

    with tempfile.TemporaryDirectory(prefix="gamekeeper-") as folder:
        if not os.access(store.parent, os.W_OK):
            # SQLite needs to make its shared-memory file beside the database, so a copy is read instead.
            for part in store.parent.glob(f"{store.name}*"):
                shutil.copy(part, folder)
            store = Path(folder) / store.name
        link = SqliteLink(str(store), read_only=True)
        try:
            link.prepare()
            link.raw.execute("BEGIN")
            yield Reading(link, SystemClock().now())
        finally:
            link.close()


def _chosen(r: Reading, data_dir: Path, wanted: str | None) -> tuple[int, str]:
    from gamekeeper.store import registry

    if wanted is None:
        champion = registry.champion(r, LINE)
        if champion is None:
            raise NotFound(
                f"{data_dir} has no champion yet", remedy="let `gamekeeper demo` run a little longer"
            )
        return champion.model_id, champion.hash
    models = registry.models(r, LINE)
    plain = wanted.lower().removeprefix("model/")
    matches = [model for model in models if str(model.id) == plain]
    if not matches and len(plain) >= MIN_PREFIX:
        matches = [model for model in models if model.hash.startswith(plain)]
    if len(matches) > 1:
        raise UsageError(
            f"{wanted!r:.60} could be any of {len(matches)} models", remedy="write more of the hash"
        )
    if not matches:
        numbers = ", ".join(str(model.id) for model in models[:10]) or "none"
        raise NotFound(
            f"there is no model {wanted!r:.60} in {data_dir}", remedy=f"the newest there are: {numbers}"
        )
    return matches[0].id, matches[0].hash


def _check(path: Path, number: int, digest: str) -> None:
    from blake3 import blake3

    if not path.is_file():
        raise NotFound(
            f"the file of model {number} is missing ({path})", remedy="choose another with --model"
        )
    if blake3(path.read_bytes()).hexdigest() != digest:
        raise Corrupt(
            f"the file of model {number} does not hold the bytes it is named by",
            remedy="choose another with --model",
        )


def answer_lines(source: BinaryIO, out: TextIO, player: Net, simulations: int) -> None:
    """Answer each line with one JSON object, flushed; a line that cannot be answered gets {"error": why}."""
    from gamekeeper.demo.play import answer

    for text in _lines(source):
        if text is None:
            result: dict[str, int | float | str] = {"error": f"the line is longer than {LONGEST_LINE} bytes"}
        else:
            result = answer(text, player, simulations)
        out.write(json.dumps(result) + "\n")
        out.flush()


def _lines(source: BinaryIO) -> Iterator[str | None]:
    """Lines of bounded length; `None` for one that was too long, whose rest is skipped."""
    while line := source.readline(LONGEST_LINE + 1):
        if len(line) <= LONGEST_LINE or line.endswith(b"\n"):
            yield line.decode("utf-8", "replace").rstrip("\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = source.readline(LONGEST_LINE + 1)
        yield None


def converse(source: TextIO, out: TextIO, player: Net, simulations: int, *, second: bool) -> None:
    """One game against a person, who is X; the model is O. Ends with the game, with q, or with the input."""
    from gamekeeper.demo.play import answer, outcome, picture

    moves: list[int] = []
    marks = ("O", "X") if second else ("X", "O")
    out.write(RULES + "\n")
    persons_turn = not second
    while (over := outcome(moves)) is None:
        if persons_turn:
            out.write(picture(moves, *marks) + "\n")
            if not _persons_move(source, out, moves):
                return
        else:
            reply = answer(",".join(map(str, moves)), player, simulations)
            moves.append(int(reply["move"]))
            out.write(
                f"the model plays {reply['move']} (it sees its prospects at {float(reply['value']):+.2f})\n"
            )
        persons_turn = not persons_turn
    winner = "nobody" if over == "drawn" else "the model" if persons_turn else "you"
    out.write(f"{picture(moves, *marks)}\n{winner} won\n")


def _persons_move(source: TextIO, out: TextIO, moves: list[int]) -> bool:
    """Ask until a legal move is given and append it; False when the person leaves."""
    from gamekeeper.demo.play import outcome, parse_moves

    while True:
        out.write("your move> ")
        out.flush()
        text = source.readline(LONGEST_LINE)
        if not text or text.strip().lower() in ("q", "quit", "exit"):
            out.write("\n")
            return False
        try:
            (column,) = parse_moves(text)
            outcome([*moves, column])
        except ValueError:
            out.write("that is no column with room in it; type one of 0 to 6\n")
        else:
            moves.append(column)
            return True
