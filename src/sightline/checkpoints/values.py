"""The values of a tensor on disk, a mebibyte at a time, read with NumPy whatever their floating-point type.

NumPy knows no bfloat16 and no eight-bit floats. Whether a value is a number, infinite or zero is a matter of its bits,
so those are looked at as integers; where the values themselves are wanted they become float32, which holds every
bfloat16, half and eight-bit float exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sightline.checkpoints.headers import Tensor

CHUNK_BYTES = 1 << 20
"""Most bytes of a tensor in memory at a time: what fits into a processor's own cache is read fastest."""


@dataclass(frozen=True, slots=True)
class FloatBits:
    """How a floating-point type lays out its bits."""

    word: str
    """NumPy's name of the unsigned integer of its size, little-endian."""
    magnitude: int
    """Mask of all bits but the sign."""
    infinity: int
    """Magnitude of infinity, every larger one being NaN; for a type without infinity the largest finite one."""
    has_infinity: bool = True


FLOATS = {
    "F64": FloatBits("<u8", 0x7FFF_FFFF_FFFF_FFFF, 0x7FF0_0000_0000_0000),
    "F32": FloatBits("<u4", 0x7FFF_FFFF, 0x7F80_0000),
    "F16": FloatBits("<u2", 0x7FFF, 0x7C00),
    "BF16": FloatBits("<u2", 0x7FFF, 0x7F80),
    "F8_E5M2": FloatBits("u1", 0x7F, 0x7C),
    "F8_E4M3": FloatBits("u1", 0x7F, 0x7E, has_infinity=False),
}
"""Floating-point types by their name in a header. Types that scale blocks (F8_E8M0, F4, F6) have no NaN of their own
or no zero, and are looked at as bytes."""
_INTEGERS = {
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
    "BOOL": "u1",
}  # fmt: skip
VALUE_BYTES = {name: np.dtype(word).itemsize for name, word in _INTEGERS.items()} | {
    name: np.dtype(bits.word).itemsize for name, bits in FLOATS.items()
}
"""Bytes of one value of every type that `floats` reads."""


@dataclass(slots=True)
class ValueCount:
    """What kinds of values a tensor has."""

    nan: int = 0
    infinite: int = 0
    is_zero: bool = True
    """Whether every value is zero; True for a tensor without values."""


def count_values(file: BinaryIO, tensor: Tensor) -> ValueCount:
    """Count the values of a tensor that are no finite numbers, and see whether all are zero.

    Parameters
    ----------
    file : BinaryIO
        The safetensors file, open for reading.
    tensor : Tensor
        Where it lies.

    Raises
    ------
    OSError
        If it cannot be read, or ends too early.
    """
    count, bits = ValueCount(), FLOATS.get(tensor.dtype)
    for chunk in raw_chunks(file, tensor):
        if bits is None:
            count.is_zero = count.is_zero and not np.frombuffer(chunk, np.uint8).any()
            continue
        magnitudes = np.frombuffer(chunk, bits.word)
        magnitudes = magnitudes & magnitudes.dtype.type(bits.magnitude)
        largest = int(magnitudes.max(initial=0))
        count.is_zero = count.is_zero and not largest
        if largest < bits.infinity or (largest == bits.infinity and not bits.has_infinity):
            continue
        count.nan += int((magnitudes > bits.infinity).sum())
        count.infinite += int((magnitudes == bits.infinity).sum()) if bits.has_infinity else 0
    return count


def raw_chunks(file: BinaryIO, tensor: Tensor, size: int = CHUNK_BYTES) -> Iterator[memoryview]:
    """Yield the bytes of a tensor in pieces of at most ``size`` bytes; each piece is overwritten by the next.

    Raises
    ------
    OSError
        If it cannot be read, or ends too early.
    """
    buffer, at = memoryview(bytearray(min(size, tensor.size_bytes))), tensor.start
    while at < tensor.end:
        wanted = buffer[: min(tensor.end - at, len(buffer))]
        file.seek(at)  # each time: two tensors of one file may be read in turns
        if file.readinto(wanted) != len(wanted):  # type: ignore[attr-defined]  # a BufferedReader has it
            raise OSError("the file ends within a tensor")
        at += len(wanted)
        yield wanted


def floats(chunk: memoryview, dtype: str) -> NDArray[Any]:
    """Return the values of a piece of a tensor as float32, or float64 where the type needs it.

    Parameters
    ----------
    chunk : memoryview
        Whole values.
    dtype : str
        Type as the header names it.

    Returns
    -------
    ndarray of float32 or float64, shape (n,)

    Raises
    ------
    KeyError
        If the values of the type are not known here.
    """
    if dtype in ("F64", "F32", "F16"):
        values = np.frombuffer(chunk, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
        return values.astype(np.float32) if dtype == "F16" else values
    if dtype == "BF16":
        return (np.frombuffer(chunk, "<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return _eight_bit_values(dtype)[np.frombuffer(chunk, np.uint8)]
    return np.frombuffer(chunk, _INTEGERS[dtype]).astype(np.float64)


@lru_cache(maxsize=2)
def _eight_bit_values(dtype: str) -> NDArray[np.float32]:
    """Return the value of each of the 256 codes; OCP 8-bit floating point, E4M3 without infinity and E5M2."""
    codes = np.arange(256)
    exponent_bits, bias = (4, 7) if dtype == "F8_E4M3" else (5, 15)
    mantissa_bits = 7 - exponent_bits
    exponent = (codes >> mantissa_bits) & (2**exponent_bits - 1)
    fraction = (codes & (2**mantissa_bits - 1)) / 2**mantissa_bits
    values = np.where(exponent > 0, (1 + fraction) * 2.0 ** (exponent - bias), fraction * 2.0 ** (1 - bias))
    magnitude, bits = codes & 0x7F, FLOATS[dtype]
    if bits.has_infinity:
        values = np.where(magnitude == bits.infinity, np.inf, values)
    values = np.where(magnitude > bits.infinity, np.nan, values)
    return np.where(codes >= 128, -values, values).astype(np.float32)
