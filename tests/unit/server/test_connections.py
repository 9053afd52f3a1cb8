"""Bad manners on real sockets: slow, endless, half-closed, pipelined and too many; and the short way of busy calls."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from functools import partial

import httpx
import pytest

from gamekeeper.protocol import ErrorBody
from gamekeeper.server.connections import HEAD_BYTES
from gamekeeper.server.principals import secret_hash
from gamekeeper.store import inventory
from tests.unit.server.served import Served, client, serving
from tests.waiting import until

BEAT: dict[str, object] = {"incarnation": "a" * 32, "attempts": [], "observed": {}}
CLAIM: dict[str, object] = {"incarnation": "a" * 32, "slots": 1, "wait_s": 0}
CONNECT: dict[str, object] = {
    "protocol": 1, "incarnation": "a" * 32, "slots": 1, "held": [], "observed": {},
}  # fmt: skip
BUSIEST = {"/v1/agent/connect": CONNECT, "/v1/agent/beat": BEAT, "/v1/agent/claim": CLAIM}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("artifacts"), most=8, head_within_s=0.3) as running:
        yield running


def dial(served: Served) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def everything(raw: socket.socket) -> bytes:
    """All bytes until the other side closes."""
    got = b""
    try:
        while part := raw.recv(65536):
            got += part
    except ConnectionResetError:
        pass
    return got


# --- connections


@pytest.mark.parametrize("begun", [b"", b"GET /healthz HTTP/1.1\r\nHos"])
def test_a_head_that_does_not_come_is_not_waited_for(served: Served, begun: bytes) -> None:
    """Slow callers could hold all connections and shut the agents out."""
    with dial(served) as raw:
        raw.sendall(begun)
        assert everything(raw) == b""


def test_a_second_head_is_bounded_as_the_first(served: Served) -> None:
    """A caller could behave once and then hold its connection for ever."""
    with dial(served) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nHos")
        assert everything(raw).count(b"200 OK") == 1


def test_an_endless_head_is_cut_off(served: Served) -> None:
    """Headers without end could fill the memory."""
    with dial(served) as raw:
        try:
            raw.sendall(b"GET /healthz HTTP/1.1\r\n" + b"x-long: " + b"a" * (4 * HEAD_BYTES))
        except (ConnectionResetError, BrokenPipeError):
            return  # closed while we were still sending: as good
        answer = everything(raw)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431")


def test_one_connection_too_many_is_told_to_come_again(served: Served) -> None:
    """A coordinator without free sockets could look dead instead of busy."""
    held = [dial(served) for _ in range(8)]
    try:
        until(lambda: _is_busy(served))
    finally:
        for one in held:
            one.close()
    until(lambda: httpx.get(f"{served.url}/healthz", trust_env=False).status_code == 200)


def _is_busy(served: Served) -> bool:
    with dial(served) as raw:
        answer = everything(raw)
    if not answer.startswith(b"HTTP/1.1 503"):
        return False
    error = ErrorBody.model_validate_json(answer.split(b"\r\n\r\n", 1)[1])
    return error.code == "busy" and bool(error.retry_after_s)


def test_pipelined_calls_are_answered_in_order(served: Served) -> None:
    """A proxy that sends ahead could get the answers of others."""
    with dial(served) as raw:
        raw.sendall(
            b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        )
        answer = everything(raw)
    assert answer.index(b"200 OK") < answer.index(b"404 Not Found")


def test_a_caller_who_closes_its_half_leaves_nothing_behind(served: Served) -> None:
    """Half-open connections could pile up."""
    with dial(served) as raw:
        raw.sendall(b"POST /v1/agent/beat HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        raw.shutdown(socket.SHUT_WR)
        assert everything(raw) == b""


# --- the short way


def test_the_short_way_and_the_long_way_give_the_same_answers(served: Served) -> None:
    """An agent could be answered differently from its second call on."""
    served.connect(incarnation="a" * 32)
    with client(served, **served.headers("node")) as call:
        for path, message in BUSIEST.items():
            wrong: dict[str, object] = {**message, "incarnation": "b" * 32} if "connect" not in path else {}
            for body in (message, wrong, {**message, "unknown": 1}):
                short = call.post(path, json=body)
                long = call.post(
                    path, content=json.dumps(body), headers={"Content-Type": "application/json;x=y"}
                )
                assert short.status_code == long.status_code, (path, body)
                assert short.headers["content-type"] == long.headers["content-type"]
                if short.status_code >= 400:
                    assert short.json() == long.json()
                else:
                    assert short.json().keys() == long.json().keys()


@pytest.mark.parametrize("path", sorted(BUSIEST))
def test_a_credential_that_was_taken_back_is_refused_at_once(served: Served, path: str) -> None:
    """A remembered caller could go on after its credential was replaced."""
    first, second = f"first{path}", f"second{path}"
    node = served.store.write(
        partial(inventory.enrol, host_name="h", slots=1, credential_hash=secret_hash(first))
    )
    message = {**BUSIEST[path], "incarnation": secret_hash(path)[:32]}
    connect = {**CONNECT, "incarnation": message["incarnation"]}
    with client(served, Authorization=f"Bearer {first}") as call:
        for _ in range(2):
            assert call.post("/v1/agent/connect", json=connect).status_code == 200
        assert call.post(path, json=message).status_code == 200
        served.store.write(
            lambda w: w.conn.exec_driver_sql(
                "UPDATE nodes SET credential_hash = ? WHERE id = ?", (secret_hash(second), node.id)
            )
        )
        for _ in range(2):
            assert call.post(path, json=message).status_code == 401
    with client(served, Authorization=f"Bearer {second}") as call:
        assert call.post(path, json=message).status_code == 200
