from __future__ import annotations

import io

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from gamekeeper.data.npy_header import NpyHeader, canonical_descr, read_header
from gamekeeper.data.verdicts import Defect, Refusal
from tests.thoroughness import examples
from tests.unit.data.zip_builder import npy, npy_with_header


def parsed(data: bytes, size: int | None = None) -> NpyHeader:
    return read_header(io.BytesIO(data).read, len(data) if size is None else size)


NUMBERS = st.one_of(
    hnp.integer_dtypes(endianness="<"), hnp.integer_dtypes(endianness=">"), hnp.unsigned_integer_dtypes(),
    hnp.floating_dtypes(endianness=">"), hnp.floating_dtypes(), hnp.complex_number_dtypes(), hnp.boolean_dtypes(),
)  # fmt: skip


@given(
    dtype=NUMBERS,
    shape=hnp.array_shapes(min_dims=0, min_side=0, max_side=5),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0)]),
    fortran=st.booleans(),
)
@examples(100)
def test_reads_what_numpy_writes(
    dtype: np.dtype[np.generic], shape: tuple[int, ...], version: tuple[int, int], fortran: bool
) -> None:
    """An honest array is refused, or its shape, type, order or first data byte is misread."""
    array = np.zeros(shape, dtype, order="F" if fortran else "C")
    data = npy(array, version)
    header = parsed(data)
    assert (header.shape, np.dtype(header.descr), header.count) == (shape, dtype, array.size)
    assert header.fortran == (array.flags.f_contiguous and not array.flags.c_contiguous)
    assert len(data) - header.length == array.nbytes == header.count * header.itemsize


_WORDS = st.sampled_from(
    ["{", "}", "(", ")", "[", "]", ",", ":", " ", "\n", "'descr'", "'shape'", "'fortran_order'", "'<f4'", '"|u1"',
     "True", "False", "None", "3", "-1", "0", "2L", "1e3", "(3,)", "(2, 3)", "()", "'\\n'", "#", "\0", "é",
     "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", "'descr': '<f4', ", "'fortran_order': False, ",
     "'shape': (2, 3), "]
)  # fmt: skip


@given(words=st.lists(_WORDS, max_size=12), version=st.sampled_from([(1, 0), (2, 0), (3, 0)]))
@examples(250)
def test_never_believes_what_numpy_does_not(words: list[str], version: tuple[int, int]) -> None:
    """A header is read otherwise than numpy reads it, or makes the parser crash."""
    data = npy_with_header("".join(words), bytes(24), version)
    try:
        header = parsed(data)
    except Refusal:
        return
    stream = io.BytesIO(data)
    np.lib.format.read_magic(stream)
    shape, fortran, dtype = np.lib.format._read_array_header(stream, version)  # type: ignore[attr-defined]
    assert (header.shape, header.fortran, np.dtype(header.descr)) == (shape, fortran, dtype)
    assert header.length == stream.tell()


@given(data=st.binary(max_size=80), magic=st.booleans())
@examples(150)
def test_noise_is_refused(data: bytes, magic: bool) -> None:
    """Noise behind a magic number makes the parser crash or hang."""
    with pytest.raises(Refusal):
        parsed((b"\x93NUMPY\1\0" if magic else b"") + data)


def test_reads_no_further_than_the_header() -> None:
    """A header's claim makes the parser ask for more than the member holds, or for megabytes."""
    asked: list[int] = []

    def read(count: int) -> bytes:
        asked.append(count)
        return bytes(count) if len(asked) > 1 else b"\x93NUMPY\1\0\xff\xff"

    with pytest.raises(Refusal):
        read_header(read, 1 << 40)
    assert sum(asked) <= 12


@pytest.mark.parametrize(("size", "accepted"), [(9_999, True), (10_000, True), (10_001, False)])
def test_header_length_limit(size: int, accepted: bool) -> None:
    """The bound on header text is off by one from numpy's, so a file loads that was refused or the reverse."""
    text = "{'descr': '<f4', 'fortran_order': False, 'shape': ()}".ljust(size)
    data = npy_with_header(text, bytes(4))
    if accepted:
        assert parsed(data).shape == ()
        np.load(io.BytesIO(data))
    else:
        with pytest.raises(Refusal):
            parsed(data)
        with pytest.raises(ValueError, match="large"):
            np.load(io.BytesIO(data))


def test_many_axes() -> None:
    """The number of axes is unbounded, or bound too low."""

    def axes(count: int) -> bytes:
        return npy_with_header(
            f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({'1,' * count})}}", b"\0"
        )

    assert parsed(axes(32)).shape == (1,) * 32
    with pytest.raises(Refusal) as caught:
        parsed(axes(33))
    assert caught.value.reason.defect is Defect.BAD_NPY_HEADER


@pytest.mark.parametrize(
    ("descr", "canonical"),
    [("<f4", "<f4"), (">i8", ">i8"), ("|u1", "|u1"), ("<u1", "|u1"), (">b1", "|b1"), ("<c16", "<c16"),
     ("|f4", None), ("=f4", None), ("f4", None), ("<f3", None), ("<f", None), ("<b2", None), ("<f16", "<f16"),
     ("<U1", None), ("<f4 ", None), ("", None), ("|O", None), ("<i٤", None), ("<i128", None)],
)  # fmt: skip
def test_canonical_descr(descr: str, canonical: str | None) -> None:
    """Two ways to write one type count as different, or an open byte order as a type."""
    assert canonical_descr(descr) == canonical
