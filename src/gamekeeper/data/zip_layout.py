"""The directory of an untrusted zip archive, read strictly.

Theory of operation. Zip readers differ in what they believe: some trust the central directory, some the local
headers, some scan. A file on which they differ can pass a check and then load as something else. So only archives
with a single reading are accepted: the local headers, data and descriptors of the listed members tile the file from
byte 0 to the central directory without gap or overlap; the directory ends exactly where the end record begins; the
end record with its comment ends the file; and every fact stated twice is stated alike. All this is decided in bounded
memory, before any member is unpacked.

Format: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from gamekeeper.data.file_source import FileSource
from gamekeeper.data.verdicts import Defect, Limits, Refusal

STORED = 0
DEFLATED = 8

_END = struct.Struct("<4sHHHHLLH")
_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQHHLLQQQQ")
_CENTRAL = struct.Struct("<4sHHHHHHLLLHHHHHLL")
_LOCAL = struct.Struct("<4sHHHHHLLLHH")
_LOCAL_SIGNATURE = b"PK\3\4"
_MAX_COMMENT = 0xFFFF
_MAX_EXTRA = 8192  # bytes; above what aligning writers pad, and quick to walk in hundreds of members
_ALL_16 = 0xFFFF
_ALL_32 = 0xFFFFFFFF
_ZIP64 = 0x0001
_HIDING_EXTRAS = {0x7075: "a second name", 0x9901: "AES encryption", 0x0017: "strong encryption"}
_FLAG_ENCRYPTED = 0x2041  # bits 0, 6 and 13: encrypted, strongly encrypted, masked headers
_FLAG_DESCRIPTOR = 0x0008
_FLAGS_KNOWN = 0x080E  # deflate options (1, 2), data descriptor (3), UTF-8 name (11)
_MAX_VERSION = 63  # newest "version needed" that Python's zipfile reads
_DEFLATE_MAX_RATIO = 1032  # 258 bytes from 2 bits
_FILE_TYPE = 0o170000
_REGULAR = 0o100000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,123}\.npy", re.ASCII)


@dataclass(frozen=True, slots=True)
class Member:
    """One member: its array's name, where its data lies and what it must unpack to. Sizes are bytes."""

    array: str
    offset: int  # of the local header
    data: int  # offset of the first data byte
    packed: int
    size: int
    crc: int
    method: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """A record of the central directory, zip64 resolved."""

    name: bytes
    version: int
    flags: int
    method: int
    stamp: tuple[int, int]
    crc: int
    packed: int
    size: int
    offset: int
    record: int  # offset of the record itself

    def refuse(self, defect: Defect, text: str, offset: int | None = None) -> Refusal:
        where = self.record if offset is None else offset
        return Refusal(defect, text, member=self.name.decode("ascii", "replace"), offset=where)


def read_layout(source: FileSource, limits: Limits) -> list[Member]:
    """The members in file order. Raises `Refusal` when the archive is malformed, ambiguous or over a limit."""
    count, start, end = _find_directory(source)
    if count > limits.max_members or end - start > limits.max_directory:
        raise Refusal(
            Defect.LIMIT,
            f"{count} members in a directory of {end - start} bytes; "
            f"allowed are {limits.max_members} in {limits.max_directory}",
            offset=start,
        )
    entries = _read_directory(source.at(start, end - start), count, start)
    _refuse_bombs(entries, source.size, limits)
    entries.sort(key=lambda entry: entry.offset)
    members = []
    position = 0
    for index, entry in enumerate(entries):
        if entry.offset != position:
            # Not below: what was read before ends where this one begins, or earlier.
            text = f"{entry.offset - position} bytes before it belong to no member"
            raise entry.refuse(Defect.JUNK, text, position)
        following = entries[index + 1].offset if index + 1 < len(entries) else start
        member, position = _read_local(source, entry, following)
        members.append(member)
    if position != start:
        raise Refusal(Defect.JUNK, f"{start - position} bytes belong to no member", offset=position)
    return members


def _find_directory(source: FileSource) -> tuple[int, int, int]:
    """(number of entries, start, end) of the central directory, from the end record."""
    tail_start = max(0, source.size - _END.size - _MAX_COMMENT)
    tail = source.at(tail_start, source.size - tail_start)
    found = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if found < 0:
        if source.at(0, min(4, source.size)) == _LOCAL_SIGNATURE:
            raise Refusal(
                Defect.TRUNCATED, "starts as a zip archive and has no end record", offset=source.size
            )
        raise Refusal(Defect.NOT_ZIP, "no zip end record", offset=0)
    where = tail_start + found
    _, disk, start_disk, here, total, length, start, comment = _END.unpack_from(tail, found)
    surplus = len(tail) - found - _END.size - comment
    if surplus:
        defect, what = (Defect.JUNK, "follow") if surplus > 0 else (Defect.TRUNCATED, "are missing from")
        raise Refusal(defect, f"{abs(surplus)} bytes {what} the end record and its comment", offset=where)
    locator = source.at(where - _LOCATOR.size, _LOCATOR.size) if where >= _LOCATOR.size else b""
    end = where
    if locator.startswith(b"PK\6\7"):
        narrow = (disk, start_disk, here, total, length, start)
        end, wide = _read_end64(source, locator, where - _LOCATOR.size)
        for small, large, all_ones in zip(narrow, wide, (_ALL_16,) * 4 + (_ALL_32,) * 2, strict=True):
            if small not in (large, all_ones):
                raise Refusal(
                    Defect.HEADER_MISMATCH, f"end record says {small}, its zip64 form {large}", offset=where
                )
        disk, start_disk, here, total, length, start = wide
    if disk or start_disk or here != total:
        raise Refusal(Defect.MULTI_DISK, "part of an archive spread over several files", offset=where)
    if start + length != end:
        defect = Defect.JUNK if start + length < end else Defect.HEADER_MISMATCH
        raise Refusal(
            defect,
            f"the directory should end at byte {start + length}, the end record begins at {end}",
            offset=end,
        )
    return total, start, end


def _read_end64(
    source: FileSource, locator: bytes, where: int
) -> tuple[int, tuple[int, int, int, int, int, int]]:
    """(offset of the zip64 end record, its six fields in the order of the plain one)."""
    _, disk, offset, disks = _LOCATOR.unpack(locator)
    if disk or disks > 1:
        raise Refusal(Defect.MULTI_DISK, "part of an archive spread over several files", offset=where)
    if offset + _END64.size != where:
        raise Refusal(Defect.HEADER_MISMATCH, "the zip64 locator points elsewhere", offset=where)
    signature, size, _, _, disk, start_disk, here, total, length, start = _END64.unpack(
        source.at(offset, _END64.size)
    )
    if signature != b"PK\6\6" or size != _END64.size - 12:
        raise Refusal(Defect.HEADER_MISMATCH, "malformed zip64 end record", offset=offset)
    return offset, (disk, start_disk, here, total, length, start)


def _read_directory(data: bytes, count: int, start: int) -> list[_Entry]:
    entries: list[_Entry] = []
    names: set[bytes] = set()
    position = 0
    for _ in range(count):
        entry, position = _read_entry(data, position, start)
        if entry.name in names:
            raise entry.refuse(Defect.DUPLICATE_MEMBER, "two members of that name")
        names.add(entry.name)
        entries.append(entry)
    if position != len(data):
        raise Refusal(
            Defect.HEADER_MISMATCH, f"more directory than its {count} entries need", offset=start + position
        )
    return entries


def _read_entry(data: bytes, position: int, start: int) -> tuple[_Entry, int]:
    """(the entry at `position` of the directory, the position behind it)."""
    if position + _CENTRAL.size > len(data) or data[position : position + 4] != b"PK\1\2":
        raise Refusal(Defect.HEADER_MISMATCH, "no directory entry where one must be", offset=start + position)
    (
        _, _, version, flags, method, time, date, crc, packed, size,
        name_length, extra_length, comment_length, disk, _, attributes, offset,
    ) = _CENTRAL.unpack_from(data, position)  # fmt: skip
    at = position + _CENTRAL.size
    end = at + name_length + extra_length + comment_length
    if end > len(data):
        raise Refusal(Defect.HEADER_MISMATCH, "directory entry reaches past its end", offset=start + position)
    name = data[at : at + name_length]
    extra = data[at + name_length : at + name_length + extra_length]
    fields = [(size, 8, _ALL_32), (packed, 8, _ALL_32), (offset, 8, _ALL_32), (disk, 4, _ALL_16)]
    size, packed, offset, disk = _widen(fields, extra, name, start + position)
    entry = _Entry(name, version, flags, method, (time, date), crc, packed, size, offset, start + position)
    _check_entry(entry, disk, attributes >> 16)
    return entry, end


def _check_entry(entry: _Entry, disk: int, mode: int) -> None:
    """Refuse what no writer of .npz files produces; `mode` is the Unix mode, 0 where unknown."""
    text = entry.name.decode("ascii", "replace")
    if not _NAME.fullmatch(text) or text.endswith(".npy.npy"):
        raise entry.refuse(Defect.BAD_NAME, f"{text!r} is not a plain name ending in .npy")
    if mode & _FILE_TYPE not in (0, _REGULAR):
        raise entry.refuse(Defect.BAD_NAME, "a link or folder, not a file")
    if entry.flags & _FLAG_ENCRYPTED:
        raise entry.refuse(Defect.ENCRYPTED, "encrypted")
    if disk:
        raise entry.refuse(Defect.MULTI_DISK, f"lies on disk {disk}")
    if entry.flags & ~_FLAGS_KNOWN or entry.version & 0xFF > _MAX_VERSION:
        raise entry.refuse(Defect.UNSUPPORTED, f"flags {entry.flags:#06x}, version {entry.version & 0xFF}")
    if entry.method not in (STORED, DEFLATED):
        raise entry.refuse(Defect.UNSUPPORTED, f"compression method {entry.method}; use stored or deflated")
    if entry.method == STORED and entry.packed != entry.size:
        raise entry.refuse(Defect.SIZE_MISMATCH, f"stored, yet {entry.packed} bytes hold {entry.size}")
    if entry.size > _DEFLATE_MAX_RATIO * (entry.packed + 1):
        raise entry.refuse(Defect.SIZE_MISMATCH, f"{entry.packed} bytes cannot unpack to {entry.size}")


def _widen(fields: list[tuple[int, int, int]], extra: bytes, name: bytes, offset: int) -> list[int]:
    """The fields (value, bytes in the zip64 extra, value that means "see there") with zip64 resolved.

    Also walks all extra fields: they must be well formed and may not hide a second name or encryption.
    """

    def refuse(text: str, defect: Defect = Defect.HEADER_MISMATCH) -> Refusal:
        return Refusal(defect, text, member=name.decode("ascii", "replace"), offset=offset)

    if len(extra) > _MAX_EXTRA:
        raise refuse(f"{len(extra)} bytes of extra fields; allowed are {_MAX_EXTRA}", Defect.LIMIT)
    wide: bytes | None = None
    position = 0
    while position < len(extra):
        if position + 4 > len(extra):
            raise refuse("malformed extra fields")
        kind, length = struct.unpack_from("<HH", extra, position)
        if position + 4 + length > len(extra):
            raise refuse("malformed extra fields")
        if kind in _HIDING_EXTRAS:
            defect = Defect.BAD_NAME if kind == 0x7075 else Defect.ENCRYPTED
            raise refuse(f"extra field {kind:#06x}: {_HIDING_EXTRAS[kind]}", defect)
        if kind == _ZIP64:
            if wide is not None:
                raise refuse("two zip64 extra fields")
            wide = extra[position + 4 : position + 4 + length]
        position += 4 + length
    needed = [width for value, width, all_ones in fields if value == all_ones]
    if wide is None:
        if any(width == 8 for width in needed):
            raise refuse("a size is left to a zip64 extra field that is not there")
        return [value for value, _, _ in fields]
    # Writers put in the fields that do not fit, or all of them; the length tells which.
    complete = len(wide) != sum(needed)
    values, at = [], 0
    for value, width, all_ones in fields:
        if at + width <= len(wide) and (complete or value == all_ones):
            large = int.from_bytes(wide[at : at + width], "little")
            at += width
            if value not in (large, all_ones):
                raise refuse(f"header says {value}, its zip64 extra field {large}")
            values.append(large)
        elif value == all_ones and width == 8:
            raise refuse("malformed zip64 extra field")
        else:
            values.append(value)
    if at != len(wide):
        raise refuse("malformed zip64 extra field")
    return values


def _refuse_bombs(entries: list[_Entry], file_size: int, limits: Limits) -> None:
    total = sum(entry.size for entry in entries)
    allowed = min(limits.max_unpacked, max(limits.ratio_free, int(limits.max_ratio * file_size)))
    if total > allowed:
        worst = max(entries, key=lambda entry: entry.size)
        raise worst.refuse(
            Defect.BOMB,
            f"{file_size} bytes would unpack to {total}; allowed are {allowed} for a file of that size",
        )


def _read_local(source: FileSource, entry: _Entry, following: int) -> tuple[Member, int]:
    """(the member, the end of its data and descriptor), the local header compared with the directory's `entry`.

    `following` is where the next member or the directory begins.
    """

    def refuse(text: str, defect: Defect = Defect.HEADER_MISMATCH) -> Refusal:
        return entry.refuse(defect, text, entry.offset)

    if entry.offset + _LOCAL.size > following:
        raise refuse("its local header does not fit before what follows", Defect.OVERLAP)
    signature, version, flags, method, time, date, crc, packed, size, name_length, extra_length = (
        _LOCAL.unpack(source.at(entry.offset, _LOCAL.size))
    )
    if signature != _LOCAL_SIGNATURE:
        raise refuse("no local header where the directory points")
    data = entry.offset + _LOCAL.size + name_length + extra_length
    end = data + entry.packed
    if end > following:
        raise refuse(f"reaches to byte {end}, into what begins at {following}", Defect.OVERLAP)
    head = source.at(entry.offset + _LOCAL.size, name_length + extra_length)
    if head[:name_length] != entry.name:
        raise refuse("its local header has another name")
    if (flags, method, (time, date)) != (entry.flags, entry.method, entry.stamp):
        raise refuse("its local header has other flags, method or time")
    if version & 0xFF > _MAX_VERSION:
        raise refuse(f"needs version {version & 0xFF}", Defect.UNSUPPORTED)
    size, packed = _widen(
        [(size, 8, _ALL_32), (packed, 8, _ALL_32)], head[name_length:], entry.name, entry.offset
    )
    stated, true = (crc, packed, size), (entry.crc, entry.packed, entry.size)
    if flags & _FLAG_DESCRIPTOR:
        # Size and checksum follow the data; here they are zero, or known already.
        if any(here not in (0, there) for here, there in zip(stated, true, strict=True)):
            raise refuse("its local header has another checksum or size")
        _check_descriptor(source, entry, end, following)
        end = following
    elif stated != true:
        raise refuse("its local header has another checksum or size")
    array = entry.name.decode("ascii").removesuffix(".npy")
    return Member(array, entry.offset, data, entry.packed, entry.size, entry.crc, entry.method), end


def _check_descriptor(source: FileSource, entry: _Entry, start: int, end: int) -> None:
    """The data descriptor must fill the bytes up to `end`; its signature is optional, its sizes 4 or 8 bytes."""
    formats = {12: "<LLL", 16: "<4xLLL", 20: "<LQQ", 24: "<4xLQQ"}
    form = formats.get(end - start)
    if form is None:
        raise entry.refuse(
            Defect.HEADER_MISMATCH, f"{end - start} bytes where a data descriptor must be", start
        )
    data = source.at(start, end - start)
    if "x" in form and not data.startswith(b"PK\7\x08"):
        raise entry.refuse(Defect.HEADER_MISMATCH, "malformed data descriptor", start)
    if struct.unpack(form, data) != (entry.crc, entry.packed, entry.size):
        raise entry.refuse(Defect.HEADER_MISMATCH, "its data descriptor has another checksum or size", start)
