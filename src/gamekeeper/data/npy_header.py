"""The header of an untrusted .npy member, parsed strictly, without eval and without numpy.

Format: NEP 1 and `numpy.lib.format`, versions 1.0, 2.0 and 3.0. Accepted are headers with exactly the keys
`descr`, `fortran_order` and `shape`, in any order, whose dtype is a plain number or bool with a stated byte order.
Object dtypes would need unpickling and are never read.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod

from gamekeeper.data.verdicts import Defect, Refusal

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000  # bytes; what numpy.load reads without being told to trust the file
_MAX_DIMENSIONS = 32
_MAX_DEPTH = 4
_MAX_BYTES = 2**63 - 1
_DESCR = re.compile(r"([<>|])([biufc])([0-9]{1,2})", re.ASCII)
_SIZES = {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8, 16), "c": (8, 16, 32)}
_TOKEN = re.compile(
    r"[ \t\n]*(?:(?P<text>'[^'\\\n]*'|\"[^\"\\\n]*\")|(?P<number>-?(?:0|[1-9][0-9]{0,19}))(?P<long>L?)"
    r"|(?P<word>True|False)|(?P<mark>[{}()\[\],:]))"
)

_Literal = str | int | bool | list["_Literal"] | tuple["_Literal", ...]


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a .npy header states. `descr` is canonical: one-byte types have byte order `|`."""

    descr: str
    fortran: bool
    shape: tuple[int, ...]
    length: int  # bytes up to the first element

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return int(self.descr[2:])

    @property
    def count(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def read_header(read: Callable[[int], bytes | memoryview], size: int) -> NpyHeader:
    """Parse the header at the start of a member of `size` bytes; `read(n)` delivers its next n bytes.

    Raises `Refusal`: bad-npy-header, object-dtype, dtype, or size-mismatch when `size` is not header plus
    shape times item size. Nothing is allocated from what the header claims.
    """
    if size < 10:
        raise Refusal(Defect.BAD_NPY_HEADER, f"{size} bytes are too few for a .npy header")
    magic = bytes(read(10))
    version = (magic[6], magic[7])
    if magic[:6] != _MAGIC or version not in ((1, 0), (2, 0), (3, 0)):
        raise Refusal(Defect.BAD_NPY_HEADER, "not a .npy of version 1.0, 2.0 or 3.0")
    width = magic[8:]
    if version > (1, 0) and size >= 12:
        width += bytes(read(2))
    length = int.from_bytes(width, "little")
    start = 8 + (2 if version == (1, 0) else 4)
    if length > _MAX_HEADER or start + length > size:
        raise Refusal(Defect.BAD_NPY_HEADER, f"header of {length} bytes in a member of {size}")
    try:
        text = bytes(read(length)).decode("utf-8" if version == (3, 0) else "latin-1")
    except UnicodeDecodeError as error:
        raise Refusal(Defect.BAD_NPY_HEADER, "header is not UTF-8") from error
    header = _interpret(_Parser(text, allow_long=version < (3, 0)).dictionary(), start + length)
    if header.length + header.count * header.itemsize != size:
        raise Refusal(
            Defect.SIZE_MISMATCH,
            f"header of {header.length} bytes, shape {header.shape} and dtype {header.descr} "
            f"do not make the {size} bytes of the member",
        )
    return header


def canonical_descr(descr: str) -> str | None:
    """The dtype string as `NpyHeader.descr` has it; None when it is no plain number or its byte order is open."""
    match = _DESCR.fullmatch(descr)
    if match is None or int(match[3]) not in _SIZES[match[2]]:
        return None
    if match[3] == "1":
        return f"|{match[2]}1"
    return None if match[1] == "|" else descr


def _interpret(fields: dict[str, _Literal], length: int) -> NpyHeader:
    if fields.keys() != {"descr", "fortran_order", "shape"}:
        raise Refusal(Defect.BAD_NPY_HEADER, f"header has the keys {sorted(fields)}")
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if not isinstance(fortran, bool):
        raise Refusal(Defect.BAD_NPY_HEADER, "fortran_order is neither True nor False")
    if not isinstance(shape, tuple) or len(shape) > _MAX_DIMENSIONS:
        raise Refusal(
            Defect.BAD_NPY_HEADER, f"shape {shape!r:.80} is not a tuple of at most {_MAX_DIMENSIONS}"
        )
    sizes = [size for size in shape if isinstance(size, int) and not isinstance(size, bool) and size >= 0]
    if len(sizes) != len(shape):
        raise Refusal(Defect.BAD_NPY_HEADER, f"shape {shape!r:.80} holds what is no whole number from 0 up")
    canonical = canonical_descr(descr) if isinstance(descr, str) else None
    if canonical is None:
        raise _refuse_descr(descr)
    header = NpyHeader(canonical, fortran, tuple(sizes), length)
    # Sizes beside a zero count too: numpy refuses an empty array whose strides would not fit.
    if prod(size for size in sizes if size) * header.itemsize > _MAX_BYTES:
        raise Refusal(Defect.BAD_NPY_HEADER, f"shape {header.shape} is larger than any memory")
    return header


def _refuse_descr(descr: _Literal) -> Refusal:
    if any(re.fullmatch(r"[<>|=]?O[0-9]*|object(_|0)?", text) for text in _texts(descr)):
        return Refusal(Defect.OBJECT_DTYPE, "holds Python objects, which would have to be unpickled")
    return Refusal(Defect.DTYPE, f"dtype {descr!r:.80} is not a plain number with a stated byte order")


def _texts(value: _Literal) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return []


class _Parser:
    """Recursive descent over the few literals a header is made of; depth and length are bounded."""

    def __init__(self, text: str, *, allow_long: bool) -> None:
        self._text = text
        self._position = 0
        self._allow_long = allow_long  # Python 2 wrote shapes such as (3L,); version 3.0 came after it
        self._lexeme = ""
        self._kind = ""
        self._advance()

    def dictionary(self) -> dict[str, _Literal]:
        fields: dict[str, _Literal] = {}
        self._expect("{")
        while self._lexeme != "}":
            key = self._value(0)
            self._expect(":")
            if not isinstance(key, str) or key in fields:
                raise self._malformed()
            fields[key] = self._value(0)
            if self._lexeme != "}":
                self._expect(",")
        if self._text[self._position :].strip(" \t\n"):
            raise self._malformed()
        return fields

    def _value(self, depth: int) -> _Literal:
        kind, lexeme = self._kind, self._lexeme
        if kind == "mark":
            if depth >= _MAX_DEPTH or lexeme not in ("(", "["):
                raise self._malformed()
            return self._sequence(depth, ")" if lexeme == "(" else "]")
        self._advance()
        if kind == "text":
            return lexeme[1:-1]
        return lexeme == "True" if kind == "word" else int(lexeme)

    def _sequence(self, depth: int, end: str) -> _Literal:
        items: list[_Literal] = []
        comma = False
        self._advance()
        while self._lexeme != end:
            items.append(self._value(depth + 1))
            comma = self._lexeme == ","
            if comma:
                self._advance()
            elif self._lexeme != end:
                raise self._malformed()
        self._advance()
        if end == "]":
            return items
        # (3) is a number in brackets; (3,) is a tuple.
        return items[0] if len(items) == 1 and not comma else tuple(items)

    def _expect(self, mark: str) -> None:
        if self._kind != "mark" or self._lexeme != mark:
            raise self._malformed()
        self._advance()

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._position)
        if match is None or match.lastgroup is None:
            raise self._malformed()
        self._kind = "number" if match.lastgroup == "long" else match.lastgroup
        self._lexeme = match[self._kind]
        if match["long"] and not self._allow_long:
            raise self._malformed()
        self._position = match.end()

    def _malformed(self) -> Refusal:
        return Refusal(Defect.BAD_NPY_HEADER, f"malformed header text near character {self._position}")
