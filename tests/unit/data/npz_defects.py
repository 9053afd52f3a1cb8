"""Bad archives, each with the defect that must be found, for the contract of `npz_corpus`."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Iterator

import numpy as np

from gamekeeper.data.verdicts import Defect
from tests.unit.data.npz_corpus import Case, N, arrays, good_cases, part_with, parts, saved, with_part
from tests.unit.data.zip_builder import ZIP64_ALL, Part, build, deflate, extra, npy, npy_with_header

D = Defect


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
    yield Case("end record cut off", good[:-30], D.TRUNCATED)
    yield Case("comment cut", build(parts(), comment=b"made by")[:-2], D.TRUNCATED)
    yield Case("end record in the comment", build(parts(), comment=b"xx" + b"PK\5\6" + bytes(40)), D.JUNK)
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
    yield from _bad_names_and_flags()
    yield from _contradicting_headers()
    yield from _bad_places()
    yield from _bad_extras()
    yield from _bad_data()


def _member(title: str, defect: D, /, *, method: int = 0, **fields: object) -> Case:
    """A good archive with these fields of one member changed."""
    return Case(title, with_part(part_with(**fields), method=method), defect)


def _bad_names_and_flags() -> Iterator[Case]:
    for name in (b"../policy.npy", b"/policy.npy", b"a/policy.npy", b"a\\policy.npy", b"C:policy.npy", b"policy",
                 b".npy", b".policy.npy", b"policy.npy/", b"pol\0icy.npy", "pölicy.npy".encode(), b"policy.npy.npy",
                 b"", b"p" * 125 + b".npy", b"policy.npy\n", b"-policy.npy", b"pol icy.npy",
                 b"policy.NPY"):  # fmt: skip
        yield _member(f"name {name[:20]!r}", D.BAD_NAME, name=name)
    yield _member("symbolic link", D.BAD_NAME, central={"attributes": 0o120777 << 16})
    yield _member("second name", D.BAD_NAME, central_extra=extra(0x7075, b"\1abcdname"))
    yield _member("second name, local", D.BAD_NAME, local_extra=extra(0x7075, b"\1abcdname"))
    yield _member("AES", D.ENCRYPTED, central_extra=extra(0x9901, b"\1\0AE\3\0\0"))
    yield _member("duplicate", D.DUPLICATE_MEMBER, name=b"features.npy")
    for flag in (1, 0x40, 0x2000):
        yield _member(f"encrypted {flag:#x}", D.ENCRYPTED, flags=flag)
    for flag in (0x10, 0x20, 0x1000, 0x8000):
        yield _member(f"flag {flag:#x}", D.UNSUPPORTED, flags=flag)
    for method in (1, 6, 9, 12, 14, 93, 99):
        yield _member(f"method {method}", D.UNSUPPORTED, local={"method": method}, central={"method": method})
    yield _member("version", D.UNSUPPORTED, central={"version": 64})
    yield _member("version, local", D.UNSUPPORTED, local={"version": 64})
    yield _member("disk", D.MULTI_DISK, central={"disk": 1})


def _contradicting_headers() -> Iterator[Case]:
    for field in ("flags", "method", "time", "date", "crc", "size", "packed"):
        yield _member(f"local {field}", D.HEADER_MISMATCH, local={field: 2})
    yield _member("local name", D.HEADER_MISMATCH, local={"name": b"polizy.npy"})
    yield _member("local name, shorter", D.HEADER_MISMATCH, local={"name": b"p"})
    yield _member("local sizes under a descriptor", D.HEADER_MISMATCH, descriptor="signed", local={"size": 3})
    for field in ("crc", "packed", "size"):
        yield _member(
            f"descriptor {field}", D.HEADER_MISMATCH, descriptor="signed", after_descriptor={field: 3}
        )
    yield Case("descriptor missing", with_part(part_with(flags=8, local={"crc": 0})), D.HEADER_MISMATCH)
    broken = with_part(part_with(descriptor="signed")).replace(b"PK\7\x08", b"PK\7\x09")
    yield Case("descriptor signature", broken, D.HEADER_MISMATCH)
    yield Case("descriptor too long", build([part if i != 2 else part_gap(part) for i, part in enumerate(
        _described())]), D.HEADER_MISMATCH)  # fmt: skip


def _bad_places() -> Iterator[Case]:
    yield _member("offset behind", D.JUNK, central={"offset": 0x7FFFFFF})
    yield _member("offset into another", D.OVERLAP, central={"offset": 3})
    yield _member("offset of another", D.OVERLAP, central={"offset": 0})
    yield _member("larger than its place", D.OVERLAP, method=8, central={"packed": 1 << 20})
    yield _member("last, no header", D.HEADER_MISMATCH, central={"name": b"zolicy.npy"})
    tail = build(parts(), before_directory=b"")
    local = tail.index(b"PK\3\4", 10)
    yield Case("local signature", tail[:local] + b"PK\3\5" + tail[local + 4 :], D.HEADER_MISMATCH)
    yield Case("central signature", tail.replace(b"PK\1\2", b"PK\1\3", 1), D.HEADER_MISMATCH)
    yield Case("central name too long", _with_central_name_length(tail, 60_000), D.HEADER_MISMATCH)


def _bad_extras() -> Iterator[Case]:
    for bad in (b"x", b"xyz", struct.pack("<HH", 9, 5), struct.pack("<HH", 1, 9) + b"x" * 8):
        yield _member(f"malformed extra {bad!r}", D.HEADER_MISMATCH, central_extra=bad)
    yield _member("zip64 extra twice", D.HEADER_MISMATCH, central_extra=extra(1, b"") * 2)
    yield _member("zip64 extra missing", D.HEADER_MISMATCH, central={"size": ZIP64_ALL})
    yield _member(
        "zip64 extra short", D.HEADER_MISMATCH, central={"size": ZIP64_ALL}, central_extra=extra(1, b"1234")
    )
    yield _member("zip64 extra odd", D.HEADER_MISMATCH, central_extra=extra(1, b"x" * 30))
    yield _member(
        "zip64 extra contradicts", D.HEADER_MISMATCH, central_extra=extra(1, struct.pack("<QQ", 5, 5))
    )
    partial = extra(1, struct.pack("<QQ", 1, 2))
    yield _member(
        "zip64 offset missing", D.HEADER_MISMATCH, central={"offset": ZIP64_ALL}, central_extra=partial
    )
    sizes = struct.pack("<QQ", len(npy(arrays()["policy"])), len(npy(arrays()["policy"])))
    yield _member("zip64 extra too long", D.HEADER_MISMATCH, local_extra=extra(1, sizes + b"more"))
    yield _member(
        "zip64 offset left out",
        D.HEADER_MISMATCH,
        central={"offset": ZIP64_ALL},
        central_extra=extra(1, sizes),
    )
    yield _member("too long local_extra", D.LIMIT, local_extra=extra(9, b"") * 2049)
    yield _member("too long central_extra", D.LIMIT, central_extra=extra(9, b"") * 2049)
    yield _member("stored sizes differ", D.SIZE_MISMATCH, central={"size": 5})


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
                  "(0, 9223372036854775807)", "(4294967296, 4294967296, 4294967296)", "(1,)" * 2,
                  f"({'1,' * 33})"):  # fmt: skip
        yield field(D.BAD_NPY_HEADER, shape=shape)
    for shape in ("(11,)", "(13,)", "(12, 2)", "()", "(0,)", "(1000000000000,)"):
        yield field(D.SIZE_MISMATCH, shape=shape)
    for order in ("0", "'False'", "None"):
        yield field(D.BAD_NPY_HEADER, order=order)
    for descr in ("'f4'", "'=f4'", "'|f4'", "'float32'", "'<f3'", "'<f'", "'<U1'", "'|S4'", "'|V4'", "'<M8[ns]'", "4",
                  "[('a', '<f4')]", "('<f4', (2,))",
                  "[('a', '<i2'), ('b', [('c', '|u1'), ('d', '|u1')])]"):  # fmt: skip
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

    def case(name: str, defect: D, /, **changes: np.ndarray | None) -> Case:
        return Case(name, build(parts(changes, method=8)), defect)

    def put(name: str, at: int | tuple[int, ...], value: float) -> dict[str, np.ndarray]:
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
    )
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
