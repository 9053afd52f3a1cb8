"""Archives with a known verdict, for one contract: seeded, and built field by field."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from zip_builder import ZIP64_ALL, Part, build, deflate, extra, npy, npy_with_header

from gamekeeper.data.array_contract import Contract
from gamekeeper.data.verdicts import Defect as D

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
    defect: D | None
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


def bad_archives() -> Iterator[Case]:
    """Archives that are wrong as archives."""
    good = build(parts())
    yield Case("empty file", b"", D.NOT_ZIP)
    yield Case("text", b"hello, this is no archive at all, just text" * 3, D.NOT_ZIP)
    yield Case("only npy", npy(arrays()["policy"]), D.NOT_ZIP)
    yield Case("end record only", build([]), D.MISSING_ARRAY)
    yield Case("leading junk", b"#!" + good, D.JUNK)
    yield Case("leading junk, counted in", with_part(part_with(gap_before=b"x" * 5), which=0), D.JUNK)
    yield Case("trailing junk", good + b"\0", D.JUNK)
    yield Case("junk in between", with_part(part_with(gap_before=b"secret")), D.JUNK)
    yield Case("junk before the directory", build(parts(), before_directory=b"x" * 9), D.JUNK)
    yield Case("junk behind the directory", build(parts(), after_directory=b"x" * 9), D.HEADER_MISMATCH)
    yield Case("directory shorter than it", build(parts(), end={"length": 100}), D.JUNK)
    yield Case("comment cut", build(parts(), comment=b"made by")[:-2], D.TRUNCATED)
    yield Case("end record in the comment", build(parts(), comment=b"xx" + b"PK\5\6" + b"y" * 40), D.JUNK)
    for field in ("disk", "start_disk"):
        yield Case(f"end: {field}", build(parts(), end={field: 1}), D.MULTI_DISK)
    yield Case("end: fewer here", build(parts(), end={"here": 4}), D.MULTI_DISK)
    yield Case("end: fewer entries", build(parts(), end={"here": 4, "total": 4}), D.HEADER_MISMATCH)
    yield Case("end: more entries", build(parts(), end={"here": 6, "total": 6}), D.HEADER_MISMATCH)
    yield Case("end: too many entries", build(parts(), end={"here": 60_000, "total": 60_000}), D.LIMIT)
    yield Case("end: directory too long", build(parts(), end={"length": 1 << 21}), D.HEADER_MISMATCH)
    yield Case("directory too large", build(parts(), after_directory=b"x" * (1 << 20)), D.LIMIT)
    yield Case("zip64 end: other count", build(parts(), zip64_end=True, end={"here": 4}), D.HEADER_MISMATCH)
    yield Case("zip64 end: disk", build(parts(), zip64_end=True, end64={"disk": 1}), D.HEADER_MISMATCH)
    yield Case("zip64 end: size", build(parts(), zip64_end=True, end64={"size": 45}), D.HEADER_MISMATCH)
    yield Case("zip64 locator: disks", build(parts(), zip64_end=True, locator={"disks": 2}), D.MULTI_DISK)
    yield Case("zip64 locator: disk", build(parts(), zip64_end=True, locator={"disk": 1}), D.MULTI_DISK)
    yield Case(
        "zip64 locator: offset", build(parts(), zip64_end=True, locator={"offset": 5}), D.HEADER_MISMATCH
    )
    zip64 = build(parts(), zip64_end=True)
    yield Case("zip64 end: signature", zip64.replace(b"PK\6\6", b"PK\6\5"), D.HEADER_MISMATCH)
    yield from _bad_members()


def _bad_members() -> Iterator[Case]:
    def member(title: str, defect: D, /, *, method: int = 0, **fields: object) -> Case:
        return Case(title, with_part(part_with(**fields), method=method), defect)

    for name in (b"../policy.npy", b"/policy.npy", b"a/policy.npy", b"a\\policy.npy", b"C:policy.npy", b"policy",
                 b".npy", b".policy.npy", b"policy.npy/", b"pol\0icy.npy", "pölicy.npy".encode(), b"policy.npy.npy",
                 b"", b"p" * 125 + b".npy", b"policy.npy\n", b"-policy.npy", b"pol icy.npy", b"policy.NPY"):  # fmt: skip
        yield member(f"name {name[:20]!r}", D.BAD_NAME, name=name)
    yield member("symbolic link", D.BAD_NAME, central={"attributes": 0o120777 << 16})
    yield member("second name", D.BAD_NAME, central_extra=extra(0x7075, b"\1abcdname"))
    yield member("second name, local", D.BAD_NAME, local_extra=extra(0x7075, b"\1abcdname"))
    yield member("AES", D.ENCRYPTED, central_extra=extra(0x9901, b"\1\0AE\3\0\0"))
    yield member("duplicate", D.DUPLICATE_MEMBER, name=b"features.npy")
    for flag in (1, 0x40, 0x2000):
        yield member(f"encrypted {flag:#x}", D.ENCRYPTED, flags=flag)
    for flag in (0x10, 0x20, 0x1000, 0x8000):
        yield member(f"flag {flag:#x}", D.UNSUPPORTED, flags=flag)
    for method in (1, 6, 9, 12, 14, 93, 99):
        yield member(f"method {method}", D.UNSUPPORTED, local={"method": method}, central={"method": method})
    yield member("version", D.UNSUPPORTED, central={"version": 64})
    yield member("version, local", D.UNSUPPORTED, local={"version": 64})
    yield member("disk", D.MULTI_DISK, central={"disk": 1})
    for field in ("flags", "method", "time", "date", "crc", "size", "packed"):
        yield member(f"local {field}", D.HEADER_MISMATCH, local={field: 2})
    yield member("local name", D.HEADER_MISMATCH, local={"name": b"polizy.npy"})
    yield member("local name, shorter", D.HEADER_MISMATCH, local={"name": b"p"})
    yield member("local sizes under a descriptor", D.HEADER_MISMATCH, descriptor="signed", local={"size": 3})
    for field in ("crc", "packed", "size"):
        yield member(
            f"descriptor {field}", D.HEADER_MISMATCH, descriptor="signed", after_descriptor={field: 3}
        )
    yield Case("descriptor missing", with_part(part_with(flags=8, local={"crc": 0})), D.HEADER_MISMATCH)
    broken = with_part(part_with(descriptor="signed")).replace(b"PK\7\x08", b"PK\7\x09")
    yield Case("descriptor signature", broken, D.HEADER_MISMATCH)
    yield Case("descriptor too long", build([part if i != 2 else part_gap(part) for i, part in enumerate(
        _described())]), D.JUNK)  # fmt: skip
    yield member("offset behind", D.JUNK, central={"offset": 0x7FFFFFF})
    yield member("offset into another", D.OVERLAP, central={"offset": 3})
    yield member("offset of another", D.OVERLAP, central={"offset": 0})
    yield member("larger than its place", D.OVERLAP, method=8, central={"packed": 1 << 20})
    yield member("last, no header", D.HEADER_MISMATCH, central={"name": b"zolicy.npy"})
    tail = build(parts(), before_directory=b"")
    local = tail.index(b"PK\3\4", 10)
    yield Case("local signature", tail[:local] + b"PK\3\5" + tail[local + 4 :], D.HEADER_MISMATCH)
    yield Case("central signature", tail.replace(b"PK\1\2", b"PK\1\3", 1), D.HEADER_MISMATCH)
    yield Case("central name too long", _with_central_name_length(tail, 60_000), D.HEADER_MISMATCH)
    for bad in (b"x", b"xyz", struct.pack("<HH", 9, 5), struct.pack("<HH", 1, 9) + b"x" * 8):
        yield member(f"malformed extra {bad!r}", D.HEADER_MISMATCH, central_extra=bad)
    yield member("zip64 extra twice", D.HEADER_MISMATCH, central_extra=extra(1, b"") * 2)
    yield member("zip64 extra missing", D.HEADER_MISMATCH, central={"size": ZIP64_ALL})
    yield member(
        "zip64 extra short", D.HEADER_MISMATCH, central={"size": ZIP64_ALL}, central_extra=extra(1, b"1234")
    )
    yield member("zip64 extra odd", D.HEADER_MISMATCH, central_extra=extra(1, b"x" * 30))
    yield member(
        "zip64 extra contradicts", D.HEADER_MISMATCH, central_extra=extra(1, struct.pack("<QQ", 5, 5))
    )
    partial = extra(1, struct.pack("<QQ", 1, 2))
    yield member(
        "zip64 offset missing", D.HEADER_MISMATCH, central={"offset": ZIP64_ALL}, central_extra=partial
    )
    yield member("stored sizes differ", D.SIZE_MISMATCH, central={"size": 5})
    yield from _bad_data()


def part_gap(part: Part) -> Part:
    """The part with junk in front."""
    part.gap_before = b"j"
    return part


def _described() -> list[Part]:
    found = parts()
    found[1].descriptor = "wide-signed"
    return found


def _with_central_name_length(data: bytes, length: int) -> bytes:
    at = data.index(b"PK\1\2") + 28
    return data[:at] + struct.pack("<H", length) + data[at + 2 :]


def _bad_data() -> Iterator[Case]:
    raw = npy(arrays()["policy"])
    packed = deflate(raw)

    def member(name: str, defect: D, packed: bytes, raw: bytes = raw, **fields: object) -> Case:
        return Case(name, with_part(part_with(packed=packed, raw=raw, method=8, **fields)), defect)

    yield Case("checksum, stored", with_part(part_with(central={"crc": 5}, local={"crc": 5})), D.BAD_CRC)
    yield Case(
        "checksum, deflated", with_part(part_with(central={"crc": 5}, local={"crc": 5}), method=8), D.BAD_CRC
    )
    yield member("deflate cut", D.BAD_DEFLATE, packed[:-9])
    yield member("deflate cut in its head", D.BAD_DEFLATE, packed[:3])
    yield member("deflate is noise", D.BAD_DEFLATE, b"\x07" + packed)
    yield member("deflate of nothing", D.BAD_DEFLATE, b"", raw=raw[:900])
    yield member("deflate, then junk", D.JUNK, packed + b"junk")
    yield member("unpacks to more", D.SIZE_MISMATCH, deflate(raw + b"more"))
    yield member("unpacks to less", D.SIZE_MISMATCH, deflate(raw[:-4]))
    yield member("unpacks to far more", D.SIZE_MISMATCH, deflate(raw + bytes(1 << 20)))
    yield member(
        "impossible ratio", D.SIZE_MISMATCH, packed, local={"size": 1 << 30}, central={"size": 1 << 30}
    )
    # A changed value whose NaN came from damage: the damage is the finding, not the NaN.
    damaged = bytearray(raw)
    damaged[-4:] = b"\xff\xff\xff\x7f"
    sums = {"crc": zlib.crc32(raw)}
    yield member(
        "damage that looks like NaN",
        D.BAD_CRC,
        deflate(bytes(damaged)),
        bytes(damaged),
        local=sums,
        central=sums,
    )


def bad_npy() -> Iterator[Case]:
    """Members that are wrong as .npy."""
    values = arrays()["values"]
    data = values.tobytes()

    def case(name: str, defect: D, raw: bytes) -> Case:
        return Case(name, build(parts({"values": raw})), defect)

    def header(text: str, defect: D, **options: object) -> Case:
        return case(f"header {text[:70]}", defect, npy_with_header(text, data, **options))  # type: ignore[arg-type]

    def field(defect: D, descr: str = "'<f4'", order: str = "False", shape: str = "(12,)") -> Case:
        return header(f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n", defect)

    yield case("empty member", D.BAD_NPY_HEADER, b"")
    yield case("magic only", D.BAD_NPY_HEADER, b"\x93NUMPY")
    yield case("no magic", D.BAD_NPY_HEADER, b"\x93NUMPI" + npy(values)[6:])
    for version in ((0, 0), (1, 1), (4, 0), (2, 1)):
        yield case(
            f"npy version {version}", D.BAD_NPY_HEADER, npy(values)[:6] + bytes(version) + npy(values)[8:]
        )
    yield case(
        "header longer than the member", D.BAD_NPY_HEADER, npy(values)[:8] + b"\xff\x7f" + npy(values)[10:]
    )
    yield case("header cut", D.BAD_NPY_HEADER, npy(values)[:40])
    yield case("version 2 header cut", D.BAD_NPY_HEADER, b"\x93NUMPY\2\0\0\0\0")
    yield case("huge version 2 header", D.BAD_NPY_HEADER, b"\x93NUMPY\2\0\0\0\0\x7f" + npy(values)[10:])
    padding = npy_with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (12,)}" + " " * 10_000, data)
    yield case("header of more than 10,000", D.BAD_NPY_HEADER, padding)
    yield header("{'descr': '\xe9', 'shape': (12,), 'fortran_order': False}", D.DTYPE)
    bad_utf8 = npy_with_header("{'descr': '\xe9'}", b"")
    yield case(
        "not UTF-8", D.BAD_NPY_HEADER, bad_utf8[:6] + b"\3\0" + bad_utf8[8:10] + b"\0\0" + bad_utf8[10:]
    )
    for text in ("", "{", "}", "{}", "()", "12", "{'descr': '<f4'}", "{'descr'}", "{'descr': }", "{1: 2}", "{,}",
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (12,)} x",
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (12,), 'more': 1}",
                 "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (12,)}",
                 "{'descr': '<f4' 'fortran_order': False, 'shape': (12,)}",
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (12,)", "{'descr': '<\\x66" "4'}",
                 "__import__('os').system('true')", "{'shape': __import__}", "{'descr': [[[[[[]]]]]]}",
                 "{'shape': (1 2)}", "{'shape': (,)}", "{'shape': (1,}", "{'descr': {}}", "{'shape': (1.0,)}",
                 "{'shape': (0x4,)}", "{'shape': (1_0,)}", "{'shape': (007,)}"):  # fmt: skip
        yield header(text, D.BAD_NPY_HEADER)
    python2 = "{'descr': '<f4', 'fortran_order': False, 'shape': (12L,), }\n"
    yield header(python2, D.BAD_NPY_HEADER, version=(3, 0))
    for shape in ("12", "(12)", "[12]", "(-12,)", "(True,)", "('12',)", "((12,),)", "(99999999999999999999,)",
                  "(0, 9223372036854775807)", "(4294967296, 4294967296, 4294967296)", "(1,)" * 2, f"({'1,' * 33})"):  # fmt: skip
        yield field(D.BAD_NPY_HEADER, shape=shape)
    for shape in ("(11,)", "(13,)", "(12, 2)", "()", "(0,)", "(1000000000000,)"):
        yield field(D.SIZE_MISMATCH, shape=shape)
    for order in ("0", "'False'", "None"):
        yield field(D.BAD_NPY_HEADER, order=order)
    for descr in ("'f4'", "'=f4'", "'|f4'", "'float32'", "'<f3'", "'<f'", "'<U1'", "'|S4'", "'|V4'", "'<M8[ns]'", "4",
                  "[('a', '<f4')]", "('<f4', (2,))", "[('a', '<i2'), ('b', [('c', '|u1'), ('d', '|u1')])]"):  # fmt: skip
        yield field(D.DTYPE, descr=descr)
    for descr in ("'|O'", "'O'", "'|O8'", "'object'", "[('a', '<f4'), ('b', '|O')]"):
        yield field(D.OBJECT_DTYPE, descr=descr)
    yield case("objects", D.OBJECT_DTYPE, npy(np.array([1, "two", None], dtype=object)))
    yield case("a bare pickle", D.BAD_NPY_HEADER, pickle.dumps(list(range(40))))
    yield case("data too short", D.SIZE_MISMATCH, npy(values)[:-1])
    yield case("data too long", D.SIZE_MISMATCH, npy(values) + b"\0")


def bad_contents() -> Iterator[Case]:
    """Sound archives that break the contract."""
    good = arrays()

    def case(name: str, defect: D, method: int = 8, **changes: np.ndarray | None) -> Case:
        return Case(name, build(parts(changes, method=method)), defect)

    def put(name: str, at: object, value: float) -> dict[str, np.ndarray]:
        changed = good[name].copy()
        changed[at] = value
        return {name: changed}

    for name in good:
        yield case(f"no {name}", D.MISSING_ARRAY, **{name: None})
    yield case("a further array", D.EXTRA_ARRAY, more=np.zeros(3))
    yield case("f8 features", D.DTYPE, features=good["features"].astype("<f8"))
    yield case("big endian values", D.DTYPE, values=good["values"].astype(">f4"))
    yield case("signed legal", D.DTYPE, legal=good["legal"].astype("|i1"))
    yield case("Fortran features", D.ORDER, features=np.asfortranarray(good["features"]))
    yield case("fewer axes", D.SHAPE, features=good["features"].reshape(N, -1))
    yield case("other fixed axis", D.SHAPE, policy=good["policy"][:, :6].copy())
    yield case("other N", D.SHAPE, values=good["values"][:-1])
    yield case("empty named axis", D.SHAPE, features=np.zeros((N, 3, 0, 2), np.float32))
    yield case("empty optional array", D.SHAPE, done=np.zeros(0, np.bool_))
    yield Case("one sample", saved(arrays(1)), D.TOO_FEW_SAMPLES)
    yield Case("no sample", saved(arrays(0)), D.TOO_FEW_SAMPLES)
    for value in (np.nan, np.inf, -np.inf):
        yield case(f"{value} feature", D.NOT_FINITE, **put("features", (N - 1, 2, 3, 1), value))
        yield case(f"{value} value", D.NOT_FINITE, **put("values", 0, value))
        yield case(f"{value} big endian", D.NOT_FINITE, move=np.full((N, 5), value, ">f4"))
        yield case(f"{value} in any order", D.NOT_FINITE, plane=np.asfortranarray(np.full((N, 2, 3), value)))
    yield case(
        "feature above", D.RANGE, **put("features", (3, 0, 0, 0), np.nextafter(np.float32(1), np.float32(2)))
    )
    yield case("feature below", D.RANGE, **put("features", (3, 0, 0, 0), -1e-45))
    yield case("value above", D.RANGE, **put("values", 5, 1.5))
    yield case("legal above", D.RANGE, **put("legal", (4, 0), 2))
    yield case("noise above", D.RANGE, noise=np.where(np.arange(N) == 4, 5.1, np.nan))
    yield case("noise infinite", D.RANGE, noise=np.where(np.arange(N) == 4, np.inf, 0.0))
    yield case("truth value 2", D.RANGE, done=np.frombuffer(b"\1\0\2" * 4, dtype=np.bool_))
    yield case("negative policy", D.RANGE, **put("policy", (2, 0), -0.5))
    yield case("policy of zeros", D.ROW_SUM, **put("policy", 3, 0.0))
    yield case("policy sums to 1.002", D.ROW_SUM, policy=good["policy"] * np.float32(1.002))
    yield case(
        "one illegal move",
        D.ILLEGAL_WEIGHT,
        legal=np.where(good["policy"] == good["policy"].max(), 0, good["legal"]).astype(np.uint8),
    )  # noqa: E501
    yield case("two ones", D.ONE_HOT, move=np.tile(np.array([1, 1, 0, 0, 0], np.uint8), (N, 1)))
    yield case("no one", D.ONE_HOT, move=np.zeros((N, 5), np.uint8))
    yield case("a two", D.ONE_HOT, move=np.tile(np.array([1, 2, 0, 0, 0], np.uint8), (N, 1)))
    yield case("two halves", D.ONE_HOT, move=np.full((N, 5), 0.5, np.float32))


def bombs() -> Iterator[Case]:
    """Small files that would unpack to a lot."""
    one = Part(b"values.npy", b"", 8)
    size = 1 << 40
    shape = npy_with_header(
        f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size - 200},), }}" + " " * 120
    )
    one.packed = deflate(shape + bytes(1 << 20))
    one.local = one.central = {"size": size}
    one.local_wide = one.central_wide = True
    yield Case("declared too large", build([one]), D.SIZE_MISMATCH)
    many = [Part(b"m%03d.npy" % i, bytes(1 << 20), 8) for i in range(100)]
    yield Case("many zeros", build(many), D.BOMB)
    whole = npy(np.zeros(100 << 20, np.uint8))
    yield Case("honest zeros", build([Part(b"values.npy", whole, 8)]), D.BOMB)
    shared = [Part(b"a.npy", npy(np.zeros(9 << 20, np.uint8)), 8)]
    shared += [
        Part(b"b%02d.npy" % i, b"", 8, central={"offset": 0, "size": 9 << 20, "packed": 9172})
        for i in range(5)
    ]
    yield Case("members share their data", build(shared), D.OVERLAP)
    yield Case("a shape without data", build(parts({"values": npy_with_header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (22000000000,), }\n")})), D.SIZE_MISMATCH)  # fmt: skip


def all_cases() -> list[Case]:
    """The whole corpus; names are unique."""
    return [*good_cases(), *bad_archives(), *bad_npy(), *bad_contents(), *bombs()]
