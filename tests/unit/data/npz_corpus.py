"""Archives with a known verdict, for one contract: seeded, and built field by field."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

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


def saved(found: dict[str, np.ndarray], *, compressed: bool = False) -> bytes:
    """What numpy writes for the arrays."""
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **found)
    return out.getvalue()


def parts(changes: dict[str, np.ndarray | bytes | None] | None = None, *, method: int = 0) -> list[Part]:
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
    plain = arrays()
    yield Case("stored", saved(plain), None)
    yield Case("deflated", saved(plain, compressed=True), None)
    sink = _Unstreamable()
    np.savez_compressed(sink, **plain)  # type: ignore[arg-type]
    yield Case("numpy with descriptors", bytes(sink.data), None)
    yield Case("bare", build(parts()), None)
    for descriptor in ("plain", "signed", "wide", "wide-signed"):
        yield Case(f"descriptor {descriptor}", with_part(part_with(descriptor=descriptor, method=8)), None)
    yield Case(
        "descriptor, sizes known before", with_part(lambda p: (
            setattr(p, "descriptor", "signed"), setattr(p, "local", {"crc": zlib.crc32(p.raw), "size": len(p.raw)}),
        )[0]), None,
    )  # fmt: skip
    yield Case(
        "descriptor, wide local", with_part(part_with(descriptor="wide-signed", local_wide=True)), None
    )
    yield Case("wide local", with_part(part_with(local_wide=True, version=45)), None)
    yield Case("wide central", with_part(part_with(central_wide=True, version=45)), None)
    yield Case("zip64 end", build(parts(), zip64_end=True), None)
    yield Case("zip64 end, all said twice", build(parts(), zip64_end=True, end={"here": 5, "total": 5}), None)
    disk = extra(1, struct.pack("<L", 0))
    yield Case("zip64 disk", with_part(part_with(central={"disk": 0xFFFF}, central_extra=disk)), None)
    yield Case("empty zip64 extra", with_part(part_with(central_extra=extra(1, b""))), None)
    raw = npy(plain["policy"])
    twice = extra(1, struct.pack("<QQ", len(raw), len(raw)))
    yield Case("sizes said twice", with_part(part_with(central_extra=twice, local_extra=twice)), None)
    yield Case("comment", build(parts(), comment=b"made by a test"), None)
    yield Case("longest comment", build(parts(), comment=b"c" * 0xFFFF), None)
    yield Case("member comment", with_part(part_with(comment=b"policy")), None)
    yield Case("timestamps", with_part(part_with(local_extra=extra(0x5455, b"\1" + b"\0" * 4))), None)
    yield Case("padding", with_part(part_with(local_extra=extra(0xD935, bytes(8188)))), None)
    yield Case("UTF-8 flag", with_part(part_with(flags=0x800)), None)
    yield Case("deflate options", with_part(part_with(flags=6, method=8)), None)
    yield Case("other order", build(parts(), directory_order=[3, 1, 4, 0, 2]), None)
    yield Case("regular file mode", with_part(part_with(central={"attributes": 0o100644 << 16})), None)
    yield Case(
        "stored deflate blocks",
        with_part(lambda p: p.__setattr__("packed", deflate(p.raw, 0)), method=8),
        None,
    )
    for version in ((1, 0), (2, 0), (3, 0)):
        yield Case(f"npy {version}", build(parts({"policy": npy(plain["policy"], version)})), None)
    yield Case("i8 games", build(parts({"game": plain["game"].astype("<i8")})), None)
    yield Case("one-hot", build(parts({"move": np.eye(5, dtype=np.uint8)[np.arange(N) % 5]})), None)
    yield Case("one-hot, big endian", build(parts({"move": np.eye(5, dtype=">f4")[np.arange(N) % 5]})), None)
    fortran = np.asfortranarray(np.random.default_rng(1).random((N, 2, 3)))
    yield Case("Fortran order where allowed", build(parts({"plane": fortran})), None)
    yield Case("C order where any", build(parts({"plane": np.ascontiguousarray(fortran)})), None)
    yield Case("truth values", build(parts({"done": np.arange(N) % 2 == 0})), None)
    noise = np.full(N, np.nan)
    yield Case("NaN where allowed", build(parts({"noise": noise})), None)
    yield Case(
        "infinity where allowed", build(parts({"noise": np.where(np.arange(N) > 3, -np.inf, noise)})), None
    )
    values = npy(plain["values"]).replace(b"'fortran_order': False", b"'fortran_order': True ")
    yield Case("order of a single axis", build(parts({"values": values})), None)
    header = "{'shape':(12,),\"descr\":'<f4' , 'fortran_order':False}"
    yield Case(
        "odd header text", build(parts({"values": npy_with_header(header, plain["values"].tobytes())})), None
    )
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (12L,), }\n"
    yield Case(
        "Python 2 header", build(parts({"values": npy_with_header(header, plain["values"].tobytes())})), None
    )
    header = "{'descr': '<u1', 'fortran_order': False, 'shape': (12, 7), }\n"
    yield Case(
        "order of bytes", build(parts({"legal": npy_with_header(header, plain["legal"].tobytes())})), None
    )
    minus_zero = plain["features"].copy()
    minus_zero[2] = -0.0
    yield Case("minus zero", build(parts({"features": minus_zero})), None)
    for dtype in ("<i2", ">u4", "<f2", ">f8", "<c8", "|b1", "<f8"):
        yield Case(f"further array {dtype}", build(parts({"more": np.zeros((2, 3), dtype)})), None, open=True)
    yield Case("further array, 0-d", build(parts({"more": np.array(3.5)})), None, open=True)
    yield Case("further array, empty", build(parts({"more": np.zeros((0, 9))})), None, open=True)
    yield Case(
        "further array, Fortran", build(parts({"more": np.asfortranarray(np.ones((2, 3)))})), None, open=True
    )
