"""The HTTP face on a real socket: rights, bounds, malformed input, resumed uploads, ranges, and callers who hang up."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from gamekeeper.protocol import ErrorBody, Sealed, UploadState
from gamekeeper.server.admission import MAX_BODY, Admission
from gamekeeper.server.gates import Bound, Gates, default_bounds
from gamekeeper.server.uploads import MAX_CHUNK
from tests.unit.server.rig import digest, run, shard
from tests.unit.server.served import Served, client, serving
from tests.waiting import until

GRANTLESS = {"incarnation": "a" * 32, "slots": 1, "wait_s": 0}
FINISH = {"token": 1, "reason": "finished", "receipt": {"a": 1}}
MESSAGES: dict[str, tuple[str, dict[str, object]]] = {
    "/v1/enrol": ("join", {"protocol": 1, "host_name": "h", "slots": 1}),
    "/v1/agent/connect": (
        "node",
        {"protocol": 1, "incarnation": "a" * 32, "slots": 1, "held": [{"attempt": 1, "token": 2}], "observed": {}},
    ),
    "/v1/agent/claim": ("node", GRANTLESS),
    "/v1/agent/beat": (
        "node",
        {"incarnation": "a" * 32, "attempts": [{"attempt": 1, "token": 2, "units": 3}], "observed": {"load": 0.5}},
    ),
    "/v1/attempts/1/started": ("node", {"token": 1, "boot_id": "b", "pid": 2, "start_ticks": 3}),
    "/v1/attempts/1/finish": ("node", FINISH),
    f"/v1/attempts/1/1/artifacts/{'a' * 64}/seal": (
        "node", {"kind": "shard", "name": "s.npz", "bytes": 3, "metadata": {"games": 1}},
    ),
    "/v1/stop": ("admin", {"reason": "r", "phase": "turning"}),
    "/v1/jobs": ("admin", {"jobs": [{"kind": "command", "line": "x", "command": ["true"]}], "producer": "p"}),
    "/v1/jobs/1/hold": ("admin", {"reason": "r"}),
    "/v1/bulk/plan": ("admin", {"verb": "hold", "where": "state=ready", "ids": [1]}),
    "/v1/bulk": ("admin", {"verb": "hold", "where": "line=none", "ids": [1], "reason": "r"}),
    "/v1/nodes/n-1/exclude": ("admin", {"for_s": 60.0, "because": "r"}),
}  # fmt: skip
READS = [
    "/v1/status", "/v1/lines", "/v1/jobs", "/v1/nodes", "/v1/models", "/v1/events", "/v1/why/line/mini", "/v1/report",
    "/v1/bulk",
]  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("artifacts")) as running:
        yield running


@pytest.fixture(scope="module")
def anybody(served: Served) -> Iterator[httpx.Client]:
    """One client for many calls."""
    with client(served) as call:
        yield call


def error_of(answer: httpx.Response) -> ErrorBody:
    return ErrorBody.model_validate_json(answer.content)


# --- rights


@pytest.mark.parametrize("who", ["nobody", "admin", "join", "node"])
def test_every_call_is_for_one_kind_of_caller(served: Served, who: str) -> None:
    """A token could do what it was not issued for."""
    with client(served, **served.headers(who)) as call:
        for path, (right, message) in MESSAGES.items():
            answer = call.post(path, json=message)
            if who == right:
                assert answer.status_code in (200, 400, 404, 409), (path, answer.text)
            else:
                assert answer.status_code == (401 if who == "nobody" else 403), (path, answer.text)
                assert error_of(answer).code == "not-allowed"
        for path in READS:
            assert call.get(path).status_code == {"nobody": 401, "admin": 200}.get(who, 403), path
        upload = call.put(f"/v1/attempts/1/1/artifacts/{'a' * 64}?offset=0", content=b"x")
        assert upload.status_code == {"nobody": 401, "node": 404}.get(who, 403)
        download = call.get(f"/v1/artifacts/{'a' * 64}")
        assert download.status_code == {"nobody": 401, "join": 403}.get(who, 404)
        assert call.get("/healthz").status_code == 200


@pytest.mark.parametrize("header", ["Bearer", "Basic YTpi", "Bearer a b", "bearer wrong", "x" * 5000])
def test_strange_authorization_headers_are_nobodys(served: Served, header: str) -> None:
    """A header that cannot be read could crash the call or let somebody in."""
    with client(served, Authorization=header) as call:
        assert call.get("/v1/status").status_code == 401


# --- malformed input

huge = st.integers(min_value=-(10**30), max_value=10**30)
scalars = st.none() | st.booleans() | huge | st.floats() | st.text(max_size=8) | st.just("\ud800")
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=250)
@given(data=st.data(), path=st.sampled_from(sorted(MESSAGES)))
def test_no_body_makes_the_server_fail(
    served: Served, anybody: httpx.Client, data: st.DataObject, path: str
) -> None:
    """A strange body could end in an unhandled error, and so hide what is wrong with it."""
    right, message = MESSAGES[path]
    kind = data.draw(st.sampled_from(["bytes", "json", "mutated", "truncated"]))
    if kind == "bytes":
        body = data.draw(st.binary(max_size=60))
    elif kind == "json":
        body = json.dumps(data.draw(values)).encode()
    elif kind == "mutated":
        field = data.draw(st.sampled_from([*message, "unknown"]))
        body = json.dumps({**message, field: data.draw(values)}).encode()
    else:
        whole = json.dumps(message).encode()
        body = whole[: data.draw(st.integers(0, len(whole) - 1))]
    answer = anybody.post(
        path, content=body, headers={"Content-Type": "application/json", **served.headers(right)}
    )
    assert answer.status_code < 500, (path, body, answer.text)
    if answer.status_code >= 400:
        error = error_of(answer)
        assert error.code
        assert error.message


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"\xff\xfe",
        b"9" * 5000,
        b'{"token": 1e999}',
        b'{"token": 9223372036854775808}',
        b'{"token": NaN, "reason": "finished"}',
        b'{"token": 1, "reason": "finished", "receipt": "\\ud800"}',
        b'{"token": 1, "reason": "finished", "receipt": [1e400]}',
        b"",
    ],
)
def test_hostile_json_is_a_usage_error(served: Served, body: bytes) -> None:
    """Deep nesting, huge numbers or half characters could crash the parser or the store."""
    with client(served, **served.headers("node")) as call:
        answer = call.post(
            "/v1/attempts/1/finish", content=body, headers={"Content-Type": "application/json"}
        )
    assert answer.status_code in (400, 404), answer.text
    assert error_of(answer).code in ("usage", "not-found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs?limit=0", "/v1/jobs?limit=99999999999999999999", "/v1/jobs?state=odd", "/v1/events?after=-1",
        "/v1/why/job/abc", "/v1/why/job/99999999999999999999999", "/v1/why/job/-1", "/v1/why/odd/1",
        "/v1/why/node/%00", "/v1/why/line/..%2f..", "/v1/artifacts/..%2f..%2fetc%2fpasswd", "/nowhere",
        "/v1/why/job/%D9%A1", "/v1/artifacts/" + "A" * 64, "/v1/why/job/12345",
    ],
)  # fmt: skip
def test_strange_addresses_are_refused_with_words(served: Served, path: str) -> None:
    """A strange path could crash the call or reach a file."""
    with client(served, **served.headers("admin")) as call:
        answer = call.get(path)
    assert answer.status_code in (400, 404), answer.text
    assert error_of(answer).message


def test_a_wrong_method_is_told(served: Served) -> None:
    """An answer without an error body could break clients."""
    with client(served, **served.headers("admin")) as call:
        answer = call.delete("/v1/status")
    assert answer.status_code == 405
    assert error_of(answer).code == "usage"


# --- bounds


def test_a_body_beyond_the_bound_is_cut_off(served: Served) -> None:
    """A body without a declared length could fill the memory."""

    def flood() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 20)

    with client(served, **served.headers("node")) as call:
        declared = call.post("/v1/agent/beat", content=bytes(MAX_BODY + 1))
        assert (declared.status_code, error_of(declared).code) == (413, "usage")
        chunked = call.put(f"/v1/attempts/1/1/artifacts/{'a' * 64}?offset=0", content=bytes(MAX_CHUNK + 1))
        assert chunked.status_code == 413
        try:
            endless = call.post("/v1/agent/beat", content=flood())
        except httpx.TransportError:
            return  # the server closed the connection while we were still sending: as good
        assert endless.status_code == 413


def test_a_lying_length_is_refused(served: Served) -> None:
    """A length that is no number could pass the bound."""
    host, port = served.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.sendall(
            b"POST /v1/agent/beat HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n"
        )
        assert raw.recv(100).split()[1] in (b"400", b"413")


def test_a_class_of_calls_that_is_full_says_busy_and_leaves_the_others_room() -> None:
    """Uploads or people's questions could starve the beats."""

    async def inner(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    bounds = {
        name: Bound(0 if name in ("upload", "people") else 1, again_after_s=3.0) for name in default_bounds()
    }
    gates = Gates(bounds, random.Random(3))

    async def scene() -> dict[str, httpx.Response]:
        transport = httpx.ASGITransport(Admission(inner, gates, lambda: 0.0))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as call:
            return {
                "beat": await call.post("/v1/agent/beat"),
                "finish": await call.post("/v1/attempts/1/finish"),
                "claim": await call.post("/v1/agent/claim"),
                "upload": await call.put("/v1/attempts/1/1/artifacts/x"),
                "people": await call.get("/v1/status"),
            }

    answers = run(scene())
    assert {name: answer.status_code for name, answer in answers.items()} == {
        "beat": 200, "finish": 200, "claim": 200, "upload": 503, "people": 503,
    }  # fmt: skip
    turned = error_of(answers["people"])
    assert turned.code == "busy"
    assert turned.retry_after_s is not None
    assert turned.retry_after_s >= 1.5
    assert int(answers["people"].headers["Retry-After"]) == round(turned.retry_after_s)
    assert all(gates.inside(name) == 0 for name in bounds), "a place was not given back"


# --- uploads and downloads


def test_an_upload_is_resumed_sealed_and_served_in_ranges(served: Served) -> None:
    """The whole way of a shard could be broken though each of its steps works."""
    served.connect(incarnation="1" * 32)
    grant, data = served.attempt(), shard(seed=5)
    place = f"/v1/attempts/{grant.attempt}/{grant.token}/artifacts/{digest(data)}"
    with client(served, **served.headers("node")) as call:
        assert UploadState.model_validate_json(call.get(place).content).offset == 0
        call.put(place, params={"offset": 0}, content=data[:50])
        state = UploadState.model_validate_json(
            call.put(place, params={"offset": 90}, content=data[90:]).content
        )
        assert state.offset == 50
        call.put(place, params={"offset": 50}, content=data[50:])
        message = {
            "kind": "shard", "name": "s.npz", "bytes": len(data), "metadata": {"games": 2, "samples": 6},
        }  # fmt: skip
        sealed = call.post(f"{place}/seal", json=message)
        assert Sealed.model_validate_json(sealed.content).accepted, sealed.text
        file = f"/v1/artifacts/{digest(data)}"
        assert call.get(file).content == data
        part = call.get(file, headers={"Range": "bytes=100-"})
        assert (part.status_code, part.content) == (206, data[100:])
        assert call.get(file, headers={"Range": f"bytes={len(data)}-"}).status_code == 416
        finish = {
            "token": grant.token, "reason": "finished", "exit_code": 0,
            "receipt": served.selfplay_receipt((data, 2, 6)),
        }  # fmt: skip
        first = call.post(f"/v1/attempts/{grant.attempt}/finish", json=finish).json()
        again = call.post(f"/v1/attempts/{grant.attempt}/finish", json=finish).json()
    assert (first["result"], again["result"], again["state"]) == ("applied", "already", "succeeded")


def test_a_stale_upload_is_a_conflict(served: Served) -> None:
    """An agent could not tell a lost attempt from a passing trouble."""
    served.connect(incarnation="2" * 32)
    grant = served.attempt()
    place = f"/v1/attempts/{grant.attempt}/{grant.token + 1}/artifacts/{'a' * 64}"
    with client(served, **served.headers("node")) as call:
        answer = call.put(place, params={"offset": 0}, content=b"x")
    assert (answer.status_code, error_of(answer).code) == (409, "stale-token")


# --- long polls


def test_a_caller_who_hangs_up_leaves_no_parked_claim(served: Served) -> None:
    """Work could be offered to a claim whose caller is gone."""
    served.connect(incarnation="3" * 32)
    with client(served, **served.headers("node")) as call:
        message = {"incarnation": served.incarnation, "slots": 1, "wait_s": 60}
        with pytest.raises(httpx.ReadTimeout):
            call.post("/v1/agent/claim", json=message, timeout=0.3)
    until(lambda: not served.here.board.waiting())


def test_openapi_describes_every_call(served: Served) -> None:
    """The published description could lag behind the calls."""
    with client(served) as call:
        paths = call.get("/openapi.json").json()["paths"]
    assert {"/v1/enrol", "/v1/agent/claim", "/v1/status", "/v1/attempts/{attempt}/finish"} <= paths.keys()
    body = paths["/v1/agent/claim"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/Claim"}
