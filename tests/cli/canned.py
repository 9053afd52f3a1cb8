"""A coordinator of canned answers on loopback: for what the command line makes of answers, good and bad ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel

Answer = tuple[int, bytes]
TOKEN = "admin-secret"


def as_json(value: BaseModel | Sequence[BaseModel] | dict[str, object], status: int = 200) -> Answer:
    document = (
        [item.model_dump(mode="json") for item in value]
        if isinstance(value, Sequence)
        else value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    )  # fmt: skip
    return status, json.dumps(document).encode()


def error(status: int, code: str, message: str, **more: object) -> Answer:
    return as_json(
        {"code": code, "message": message, "remedy": "do that", "retry_after_s": None, **more}, status
    )


@dataclass
class Canned:
    """Answers by path, and what was asked. An answer may be computed from the query."""

    answers: dict[str, Answer | Callable[[dict[str, str]], Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str], object]] = field(default_factory=list)
    url: str = ""

    def announce(self, data_dir: Path) -> Path:
        """Make the files by which a coordinator is found."""
        (data_dir / "tokens").mkdir(parents=True)
        (data_dir / "tokens" / "admin.token").write_text(TOKEN + "\n")
        (data_dir / "coordinator.json").write_text(json.dumps({"url": self.url, "pid": 1}))
        return data_dir


@contextmanager
def serving() -> Iterator[Canned]:
    """Serve until the block ends."""
    canned = Canned()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply("GET", None)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            self.reply("POST", json.loads(self.rfile.read(length)))

        def reply(self, method: str, body: object) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            canned.asked.append((method, parts.path, query, body))
            status, content = error(404, "not-found", f"no such thing: {parts.path}")
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                status, content = error(401, "not-allowed", "the token is wrong")
            elif parts.path in canned.answers:
                answer = canned.answers[parts.path]
                status, content = answer(query) if callable(answer) else answer
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    canned.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield canned
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
