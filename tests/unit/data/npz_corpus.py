"""Archives with a known verdict, for one contract: seeded, and built field by field."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from gamekeeper.data.array_contract import Contract
from gamekeeper.data.verdicts import Defect
from tests.unit.data.zip_builder import Part, build, deflate, extra, npy, npy_with_header

N = 12
CONTRACT = Contract.from_mapping(
    {
        "arrays": {
            "features": {"dtype": "<f4", "shape": ["N", 3, "H", 2], "min": 0.0, "max": 1.0},
            "policy": {
                "dtype": "<f4",
                "shape": ["N", 7],
                "min": 0,
                "row_sum": 1.0,
                "zero_where_not": "legal",
            },
            "legal": {"dtype": "|u1", "shape": ["N", 7], "min": 0, "max": 1},
            "values": {"dtype": "<f4", "shape": ["N"], "min": -1, "max": 1},
            "game": {"dtype": ["<i4", "<i8"], "shape": ["N"]},
            "move": {"dtype": ["|u1", "<f4", ">f4"], "shape": ["N", 5], "one_hot": True, "required": False},
            "plane": {"dtype": "<f8", "shape": ["N", 2, 3], "order": "any", "required": False},
            "done": {"dtype": "|b1", "shape": ["N"], "required": False},
            "noise": {"dtype": "<f8", "shape": ["N"], "finite": False, "max": 5, "required": False},
        },
        "games_from": "game",
        "min_samples": 2,
    }
)
OPEN = Contract.from_mapping(CONTRACT.to_mapping() | {"extra_arrays": True})


@dataclass(frozen=True)
class Case:
    """`defect` None: the file is fine. `open`: judged by the contract that allows further arrays."""

    name: str
    data: bytes
    defect: Defect | None
    open: bool = False


def arrays(samples: int = N, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays that satisfy the contract, of `samples` samples in 3 games."""
    random = np.random.default_rng(seed)
    legal = (random.random((samples, 7)) < 0.6).astype(np.uint8)
    legal[:, 0] = 1
    policy = (random.random((samples, 7)).astype(np.float32) + np.float32(0.01)) * legal
    return {
        "features": random.random((samples, 3, 4, 2)).astype(np.float32),
        "policy": policy / policy.sum(axis=1, keepdims=True),
        "legal": legal,
        "values": random.uniform(-1, 1, samples).astype(np.float32),
        "game": np.sort(random.permutation(samples) % 3 * 100 - 7).astype(np.int32),
    }


def save_arrays(
    to: IO[bytes] | io.RawIOBase | Path, found: Mapping[str, np.ndarray], *, compressed: bool
) -> None:
    """`numpy.savez` or `numpy.savez_compressed` with the arrays under their names."""
    # Their stubs take every keyword of a mapping for `allow_pickle` too.
    write: Callable[..., None] = np.savez_compressed if compressed else np.savez
    write(to, **found)


def saved(found: Mapping[str, np.ndarray], *, compressed: bool = False) -> bytes:
    """What numpy writes for the arrays."""
    out = io.BytesIO()
    save_arrays(out, found, compressed=compressed)
    return out.getvalue()


def parts(changes: Mapping[str, np.ndarray | bytes | None] | None = None, *, method: int = 0) -> list[Part]:
    """Members for good arrays, with some replaced (raw .npy bytes or an array), added, or dropped (None)."""
    found: dict[str, np.ndarray | bytes | None] = {**arrays(), **(changes or {})}
    return [
        Part(f"{name}.npy".encode(), value if isinstance(value, bytes) else npy(value), method)
        for name, value in found.items()
        if value is not None
    ]


def with_part(change: Callable[[Part], None], *, method: int = 0, which: int = 1, **options: object) -> bytes:
    """A good archive with one member changed."""
    found = parts(method=method)
    change(found[which])
    return build(found, **options)  # type: ignore[arg-type]


def part_with(**fields: object) -> Callable[[Part], None]:
    """A change that sets fields of a member."""

    def change(part: Part) -> None:
        for name, value in fields.items():
            setattr(part, name, value)

    return change


class _Unstreamable(io.RawIOBase):
    """A sink that cannot seek, so that zipfile writes data descriptors."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self.data += piece
        return len(piece)


def good_cases() -> Iterator[Case]:
    """Every legal oddity."""
    yield from _good_archives()
    yield from _good_members()
    yield from _good_npy()
    yield from _good_contents()


def _good_archives() -> Iterator[Case]:
    plain = arrays()
    yield Case("stored", saved(plain), None)
    yield Case("deflated", saved(plain, compressed=True), None)
    sink = _Unstreamable()
    save_arrays(sink, plain, compressed=True)
    yield Case("numpy with descriptors", bytes(sink.data), None)
    yield Case("bare", build(parts()), None)
    yield Case("zip64 end", build(parts(), zip64_end=True), None)
    yield Case("zip64 end, all said twice", build(parts(), zip64_end=True, end={"here": 5, "total": 5}), None)
    yield Case("comment", build(parts(), comment=b"made by a test"), None)
    yield Case("longest comment", build(parts(), comment=b"c" * 0xFFFF), None)
    yield Case("other order", build(parts(), directory_order=[3, 1, 4, 0, 2]), None)


def _sized_before(part: Part) -> None:
    """A descriptor although the local header knows the sizes already."""
    part.descriptor = "signed"
    part.local = {"crc": zlib.crc32(part.raw), "size": len(part.raw)}


def _in_stored_blocks(part: Part) -> None:
    part.packed = deflate(part.raw, 0)


def _good_members() -> Iterator[Case]:
    def member(title: str, /, **fields: object) -> Case:
        return Case(title, with_part(part_with(**fields)), None)

    for descriptor in ("plain", "signed", "wide", "wide-signed"):
        yield member(f"descriptor {descriptor}", descriptor=descriptor, method=8)
    yield Case("descriptor, sizes known before", with_part(_sized_before), None)
    yield member("descriptor, wide local", descriptor="wide-signed", local_wide=True)
    yield member("wide local", local_wide=True, version=45)
    yield member("wide central", central_wide=True, version=45)
    yield member("zip64 disk", central={"disk": 0xFFFF}, central_extra=extra(1, struct.pack("<L", 0)))
    yield member("empty zip64 extra", central_extra=extra(1, b""))
    size = len(npy(arrays()["policy"]))
    twice = extra(1, struct.pack("<QQ", size, size))
    yield member("sizes said twice", central_extra=twice, local_extra=twice)
    yield member("member comment", comment=b"policy")
    yield member("timestamps", local_extra=extra(0x5455, b"\1" + b"\0" * 4))
    yield member("padding", local_extra=extra(0xD935, bytes(8188)))
    yield member("UTF-8 flag", flags=0x800)
    yield member("deflate options", flags=6, method=8)
    yield member("regular file mode", central={"attributes": 0o100644 << 16})
    yield Case("stored deflate blocks", with_part(_in_stored_blocks, method=8), None)


def _good_npy() -> Iterator[Case]:
    plain = arrays()

    def member(title: str, name: str, raw: bytes) -> Case:
        return Case(title, build(parts({name: raw})), None)

    for version in ((1, 0), (2, 0), (3, 0)):
        yield member(f"npy {version}", "policy", npy(plain["policy"], version))
    values = npy(plain["values"]).replace(b"'fortran_order': False", b"'fortran_order': True ")
    yield member("order of a single axis", "values", values)
    header = "{'shape':(12,),\"descr\":'<f4' , 'fortran_order':False}"
    yield member("odd header text", "values", npy_with_header(header, plain["values"].tobytes()))
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (12L,), }\n"
    yield member("Python 2 header", "values", npy_with_header(header, plain["values"].tobytes()))
    header = "{'descr': '<u1', 'fortran_order': False, 'shape': (12, 7), }\n"
    yield member("order of bytes", "legal", npy_with_header(header, plain["legal"].tobytes()))


def _good_contents() -> Iterator[Case]:
    plain = arrays()

    def case(title: str, name: str, array: np.ndarray, *, further: bool = False) -> Case:
        return Case(title, build(parts({name: array})), None, open=further)

    yield case("i8 games", "game", plain["game"].astype("<i8"))
    yield case("one-hot", "move", np.eye(5, dtype=np.uint8)[np.arange(N) % 5])
    yield case("one-hot, big endian", "move", np.eye(5, dtype=">f4")[np.arange(N) % 5])
    fortran = np.asfortranarray(np.random.default_rng(1).random((N, 2, 3)))
    yield case("Fortran order where allowed", "plane", fortran)
    yield case("C order where any", "plane", np.ascontiguousarray(fortran))
    yield case("truth values", "done", np.arange(N) % 2 == 0)
    noise = np.full(N, np.nan)
    yield case("NaN where allowed", "noise", noise)
    yield case("infinity where allowed", "noise", np.where(np.arange(N) > 3, -np.inf, noise))
    minus_zero = plain["features"].copy()
    minus_zero[2] = -0.0
    yield case("minus zero", "features", minus_zero)
    for dtype in ("<i2", ">u4", "<f2", ">f8", "<c8", "|b1", "<f8"):
        yield case(f"further array {dtype}", "more", np.zeros((2, 3), dtype), further=True)
    yield case("further array, 0-d", "more", np.array(3.5), further=True)
    yield case("further array, empty", "more", np.zeros((0, 9)), further=True)
    yield case("further array, Fortran", "more", np.asfortranarray(np.ones((2, 3))), further=True)
