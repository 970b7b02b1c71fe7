"""The numbers in many printed lines that differ in nothing but their digits, taken at once.

The lines' text is turned into one JSON list, or into one list of tokens, by blanking what stands between the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import orjson
from numpy.typing import NDArray

# Each branch begins with a character of its own, so that the search skips to the next such character; what must not
# stand before it (a letter, a digit) is looked at from there.
_UNSIGNED = rb"(?:[0-9]{0,2}(?:,[0-9]{3}){1,5}(?![0-9])|[0-9]{0,40})(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,4})?"
NUMBER = re.compile(
    rb"[0-9](?<![A-Za-z0-9_.][0-9])" + _UNSIGNED + rb"|[-+](?<![A-Za-z0-9_.][-+])[0-9]" + _UNSIGNED + rb""
    rb"|n(?<=[:= ]n)an(?![A-Za-z0-9_])|i(?<=[:= ]i)nf(?![A-Za-z0-9_])|-inf(?![A-Za-z0-9_])"
    rb"|N(?<=[:= ]N)(?:aN|AN)(?![A-Za-z0-9_])|I(?<=[:= ]I)(?:nf|NF)(?![A-Za-z0-9_])"
)
DIGITS = b"0123456789."
"""Lines that differ in nothing else have one shape."""
_EXPONENTS = ((b"e-", b"\x01\x02"), (b"e+", b"\x01\x03"))
_MARKS = {1: b"e", 2: b"-", 3: b"+"}
"""What exponents are written with while the letters around them are blanked."""
_NEGATIVE_ZERO = re.compile(rb"-0(?![.0-9e])")
_PLAIN = re.compile(rb"-?[0-9.]{1,60}(?:e[-+][0-9]{1,4})?")

Values = NDArray[np.float64]


def to_float(number: bytes) -> float:
    """Return a number as it is printed, with separators between thousands or without."""
    try:
        return float(number)
    except ValueError:
        return float(number.replace(b",", b""))


def numbers_of(
    text: bytes, lines: int, places: Sequence[int], count: int
) -> tuple[NDArray[np.bool_] | None, list[Values]]:
    """Return some of the numbers of lines of one shape.

    Parameters
    ----------
    text : bytes
        The lines.
    lines : int
        How many they are.
    places : sequence of int
        Which of the numbers of a line are wanted.
    count : int
        How many numbers a line has.

    Returns
    -------
    keep : ndarray of bool, shape (lines,), or None
        Which lines have so many; None for all. A number more, glued to a line by another process, would shift the
        places of the others.
    values : list of ndarray of float64, shape (kept lines,)
        An array a place.
    """
    blanks = _Blanks.of(text.split(b"\n", 1)[0], places, count)
    if blanks is not None and (values := blanks.values(text, lines)) is not None:
        return None, values
    numbers = NUMBER.findall(text)
    if len(numbers) == count * lines:
        return None, [np.array(list(map(to_float, numbers[place::count])), dtype=np.float64) for place in places]
    found = [NUMBER.findall(line) for line in text.split(b"\n")]
    keep = np.array([len(each) == count for each in found], dtype=np.bool_)
    kept = [each for each in found if len(each) == count]
    return keep, [np.array([to_float(each[place]) for each in kept], dtype=np.float64) for place in places]


class _Blanks:
    """How to blank what stands between the numbers of a line.

    Not for numbers with separators between thousands, for words, and where an exponent or a sign looks like a piece
    of the text.
    """

    def __init__(self, line: bytes, places: Sequence[int], numbers: Sequence[re.Match[bytes]]) -> None:
        between = _between(line, [match.span() for match in numbers])
        wanted = [numbers[place][0] for place in places]
        self._signed = any(number[:1] == b"-" for number in wanted)
        self._exponents = [(sign, mark) for sign, mark in _EXPONENTS if any(sign in number for number in wanted)]
        self.possible = (
            all(map(_PLAIN.fullmatch, wanted))
            and not (self._signed and b"-" in b"".join(between))
            and not any(sign in text for sign, _ in self._exponents for text in between)
            and not any(mark in line for mark in (b"\x01", b"\x02", b"\x03"))
        )
        commas = _one_in_each(between[1:-1], b"\n", none_in=between[0] + between[-1])
        self._listed = commas is not None
        self._table = self._of(commas or b"")
        if not self.possible:
            return
        tokens = [match.span() for match in re.finditer(rb"[^ ,]{1,400}", self._blanked(line))]
        # The marks of an exponent are as long as what they stand for, so places in the text stay what they were.
        spans = [numbers[place].span() for place in places]
        self.possible = set(spans) <= set(tokens)
        if self.possible:
            self._count = len(tokens)
            self._places = [tokens.index(span) for span in spans]
            self._listed = self._listed and tokens == [match.span() for match in numbers]

    @classmethod
    def of(cls, line: bytes, places: Sequence[int], count: int) -> _Blanks | None:
        """Return how it is done for lines like this one, None if it cannot be."""
        numbers = list(NUMBER.finditer(line))
        if len(numbers) != count:
            return None
        blanks = cls(line, places, numbers)
        return blanks if blanks.possible else None

    def values(self, text: bytes, lines: int) -> list[Values] | None:
        """Return the wanted numbers of lines, None if one of them does not look like the first."""
        text = self._blanked(text)
        if self._signed and _NEGATIVE_ZERO.search(text):  # JSON's -0 is an integer, without a sign
            return None
        size = self._count * lines
        if self._listed and (numbers := _parsed(text, size)) is not None:
            return [numbers[place :: self._count] for place in self._places]
        tokens = text.replace(b",", b" ").split()
        if len(tokens) != size:
            return None
        columns = (tokens[place :: self._count] for place in self._places)
        try:
            return [_floats(column) for column in columns]
        except ValueError:  # two dots, or nothing else
            return None

    def _of(self, commas: bytes) -> bytes:
        """Return the table that keeps what numbers are written with and makes one comma of each gap, where it can."""
        table = bytearray(b" " * 256)
        for code in DIGITS + (b"-" if self._signed else b""):
            table[code] = code
        for code, shown in _MARKS.items():
            table[code] = shown[0]
        for code in commas:
            table[code] = b","[0]
        return bytes(table)

    def _blanked(self, text: bytes) -> bytes:
        for sign, mark in self._exponents:
            text = text.replace(sign, mark)
        return text.translate(self._table)


def _between(line: bytes, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Return what stands before, between and after the numbers of a line."""
    begins, ends = [begin for begin, _ in spans], [end for _, end in spans]
    return [line[end:begin] for end, begin in zip([0, *ends], [*begins, len(line)], strict=True)]


def _one_in_each(texts: Sequence[bytes], chosen: bytes, *, none_in: bytes) -> bytes | None:
    """Return characters, some given, of which each text has exactly one; None if none are found at a first try."""
    for text in texts:
        if any(code in chosen for code in text):
            continue
        for code in text:
            more = chosen + bytes([code])
            if code not in none_in + DIGITS and all(sum(map(other.count, more)) <= 1 for other in texts):
                chosen = more
                break
        else:
            return None
    return chosen if all(sum(map(text.count, chosen)) == 1 for text in texts) else None


def _parsed(text: bytes, size: int) -> Values | None:
    """Return a list of so many JSON numbers, None if the text is none."""
    try:
        numbers = orjson.loads(b"[" + text + b"]")
    except ValueError:
        return None
    if len(numbers) != size or not set(map(type, numbers)) <= {float, int}:
        return None
    return np.array(numbers, dtype=np.float64)


def _floats(tokens: Sequence[bytes]) -> Values:
    numbers = _parsed(b",".join(tokens), len(tokens))  # not of those with zeros in front
    return np.array(list(map(float, tokens))) if numbers is None else numbers
