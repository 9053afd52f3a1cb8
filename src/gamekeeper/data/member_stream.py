"""The unpacked bytes of one archive member, in pieces, with its size and checksum proven at the end."""

from __future__ import annotations

from typing import cast

from isal import igzip_lib, isal_zlib

from gamekeeper.data.file_source import FileSource
from gamekeeper.data.verdicts import Defect, Refusal
from gamekeeper.data.zip_layout import DEFLATED, Member

# Pieces that stay in a core's second-level cache between unpacking, checksum and checks.
PIECE = 256 << 10
_PACKED_PIECE = 32 << 10
# The stubs declare the exception class as an instance.
_IsalError = cast("type[Exception]", igzip_lib.IsalError)


class MemberStream:
    """Reads a member from its start.

    Never holds more than the piece asked for plus one piece of packed data, whatever the archive claims. All methods
    raise `Refusal` (truncated stream, bad-deflate, size-mismatch, bad-crc) and what `FileSource` raises.
    """

    def __init__(self, source: FileSource, member: Member) -> None:
        self._source = source
        self._member = member
        self._position = member.data
        self._end = member.data + member.packed
        self._crc = 0
        self._buffer = bytearray()
        self._inflater = (
            igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_DEFLATE) if member.method == DEFLATED else None
        )
        self.left = member.size

    def read(self, count: int) -> bytes | memoryview:
        """The next `count` bytes (at most `left`). The result is valid until the next call."""
        piece = self._stored(count) if self._inflater is None else self._inflated(self._inflater, count)
        self._crc = isal_zlib.crc32(piece, self._crc)
        self.left -= count
        return piece

    def finish(self) -> None:
        """Read what is left, then prove that data and checksum end where the directory says."""
        while self.left:
            self.read(min(self.left, PIECE))
        if self._inflater is not None:
            self._expect_end(self._inflater)
        if self._crc != self._member.crc:
            raise self._refuse(
                Defect.BAD_CRC, f"checksum is {self._crc:08x}, the directory says {self._member.crc:08x}"
            )

    def _stored(self, count: int) -> memoryview:
        if len(self._buffer) < count:
            self._buffer = bytearray(count)
        view = memoryview(self._buffer)[:count]
        self._source.fill(view, self._position)
        self._position += count
        return view

    def _inflated(self, inflater: igzip_lib.IgzipDecompressor, count: int) -> bytes:
        piece = self._inflate(inflater, count)
        if len(piece) == count:
            return piece
        pieces = [piece]
        missing = count - len(piece)
        while missing:
            piece = self._inflate(inflater, missing)
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)

    def _inflate(self, inflater: igzip_lib.IgzipDecompressor, most: int) -> bytes:
        """Up to `most` unpacked bytes; may be empty when the packed piece held only block headers."""
        if inflater.eof:
            raise self._refuse(Defect.SIZE_MISMATCH, f"unpacks to less than {self._member.size} bytes")
        packed = b""
        if inflater.needs_input:
            if self._position == self._end:
                raise self._refuse(Defect.BAD_DEFLATE, "compressed data breaks off")
            packed = self._source.some(self._position, min(_PACKED_PIECE, self._end - self._position))
            self._position += len(packed)
        try:
            return inflater.decompress(packed, most)
        except _IsalError as error:
            raise self._refuse(Defect.BAD_DEFLATE, f"compressed data is damaged: {error}") from error

    def _expect_end(self, inflater: igzip_lib.IgzipDecompressor) -> None:
        while not inflater.eof:
            if self._inflate(inflater, 1):
                raise self._refuse(Defect.SIZE_MISMATCH, f"unpacks to more than {self._member.size} bytes")
        unused = self._end - self._position + len(inflater.unused_data)
        if unused:
            raise self._refuse(Defect.JUNK, f"{unused} bytes behind the end of the compressed data")

    def _refuse(self, defect: Defect, text: str) -> Refusal:
        return Refusal(defect, text, member=f"{self._member.array}.npy", offset=self._position)
