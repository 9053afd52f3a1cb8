"""A zip writer for tests that can also lie: every field of every record can be overridden."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

ZIP64_ALL = 0xFFFFFFFF
Descriptor = Literal["", "plain", "signed", "wide", "wide-signed"]


@dataclass
class Part:
    """One member. `local` and `central` override fields of its headers by name; sizes default to the truth."""

    name: bytes
    raw: bytes
    method: int = 0
    flags: int = 0
    version: int = 20
    stamp: tuple[int, int] = (0, 33)
    descriptor: Descriptor = ""
    packed: bytes | None = None
    local_wide: bool = False
    central_wide: bool = False
    local_extra: bytes = b""
    central_extra: bytes = b""
    comment: bytes = b""
    local: dict[str, int | bytes] = field(default_factory=dict)
    central: dict[str, int | bytes] = field(default_factory=dict)
    after_descriptor: dict[str, int] = field(default_factory=dict)
    gap_before: bytes = b""


def deflate(raw: bytes, level: int = 6) -> bytes:
    """A raw deflate stream."""
    packer = zlib.compressobj(level, wbits=-15)
    return packer.compress(raw) + packer.flush()


def npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    """The bytes of a .npy file."""
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version, allow_pickle=True)
    return out.getvalue()


def npy_with_header(text: str, data: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """A .npy whose header text is given literally."""
    encoded = text.encode("utf-8" if version == (3, 0) else "latin-1")
    width = "<H" if version == (1, 0) else "<I"
    return b"\x93NUMPY" + bytes(version) + struct.pack(width, len(encoded)) + encoded + data


def extra(kind: int, data: bytes) -> bytes:
    """One extra field."""
    return struct.pack("<HH", kind, len(data)) + data


def build(
    parts: list[Part],
    *,
    comment: bytes = b"",
    zip64_end: bool = False,
    prefix: bytes = b"",
    suffix: bytes = b"",
    before_directory: bytes = b"",
    after_directory: bytes = b"",
    end: dict[str, int] | None = None,
    end64: dict[str, int] | None = None,
    locator: dict[str, int] | None = None,
    directory_order: list[int] | None = None,
) -> bytes:
    """The archive. `prefix` is put in front without telling; `end*` override fields of the end records."""
    out = bytearray()
    records = []
    for part in parts:
        out += part.gap_before
        packed = part.packed
        if packed is None:
            packed = deflate(part.raw) if part.method == 8 else part.raw
        offset = len(out)
        out += _local(part, packed) + packed
        records.append(_central(part, packed, offset))
        out += _descriptor(part, packed)
    out += before_directory
    start = len(out)
    for index in directory_order or range(len(records)):
        out += records[index]
    out += after_directory
    length = len(out) - start
    count = len(records)
    narrow = {"disk": 0, "start_disk": 0, "here": count, "total": count, "length": length, "start": start}
    if zip64_end:
        where = len(out)
        wide = {"size": 44, "made": 45, "needed": 45} | narrow | (end64 or {})
        out += struct.pack("<4sQHHLLQQQQ", b"PK\6\6", *wide.values())
        pointer = {"disk": 0, "offset": where, "disks": 1} | (locator or {})
        out += struct.pack("<4sLQL", b"PK\6\7", *pointer.values())
        narrow |= {"here": 0xFFFF, "total": 0xFFFF, "length": ZIP64_ALL, "start": ZIP64_ALL}
    narrow |= {"comment": len(comment)} | (end or {})
    out += struct.pack("<4sHHHHLLH", b"PK\5\6", *narrow.values()) + comment
    return prefix + bytes(out) + suffix


def _flags(part: Part) -> int:
    return part.flags | (8 if part.descriptor else 0)


def _local(part: Part, packed: bytes) -> bytes:
    known = not part.descriptor
    values: dict[str, int | bytes] = {
        "version": part.version, "flags": _flags(part), "method": part.method,
        "time": part.stamp[0], "date": part.stamp[1],
        "crc": zlib.crc32(part.raw) if known else 0,
        "packed": len(packed) if known else 0,
        "size": len(part.raw) if known else 0,
        "name": part.name, **part.local,
    }  # fmt: skip
    extras = part.local_extra
    if part.local_wide:
        extras = extra(1, struct.pack("<QQ", values["size"], values["packed"])) + extras
        values |= {"size": ZIP64_ALL, "packed": ZIP64_ALL}
    name = values.pop("name")
    assert isinstance(name, bytes)
    return struct.pack("<4sHHHHHLLLHH", b"PK\3\4", *values.values(), len(name), len(extras)) + name + extras


def _central(part: Part, packed: bytes, offset: int) -> bytes:
    values: dict[str, int | bytes] = {
        "made": 20, "version": part.version, "flags": _flags(part), "method": part.method,
        "time": part.stamp[0], "date": part.stamp[1], "crc": zlib.crc32(part.raw),
        "packed": len(packed), "size": len(part.raw), "disk": 0, "inner": 0, "attributes": 0o600 << 16,
        "offset": offset, "name": part.name, **part.central,
    }  # fmt: skip
    extras = part.central_extra
    if part.central_wide:
        wide = struct.pack("<QQQ", values["size"], values["packed"], values["offset"])
        extras = extra(1, wide) + extras
        values |= {"size": ZIP64_ALL, "packed": ZIP64_ALL, "offset": ZIP64_ALL}
    name = values.pop("name")
    assert isinstance(name, bytes)
    v = values
    head = struct.pack(
        "<4sHHHHHHLLLHHHHHLL", b"PK\1\2", v["made"], v["version"], v["flags"], v["method"], v["time"], v["date"],
        v["crc"], v["packed"], v["size"], len(name), len(extras), len(part.comment), v["disk"], v["inner"],
        v["attributes"], v["offset"],
    )  # fmt: skip
    return head + name + extras + part.comment


def _descriptor(part: Part, packed: bytes) -> bytes:
    if not part.descriptor:
        return b""
    values = {
        "crc": zlib.crc32(part.raw),
        "packed": len(packed),
        "size": len(part.raw),
    } | part.after_descriptor
    form = "<LQQ" if part.descriptor.startswith("wide") else "<LLL"
    return (b"PK\7\x08" if "signed" in part.descriptor else b"") + struct.pack(form, *values.values())
