"""Lines that say a loss in words: ``step 10: train loss 2.1, val loss 2.3`` and what else people print.

A number is named by the text before it (``vocabulary``). Lines that differ only in their digits are understood once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sightline.sources.console.numbers import DIGITS, NUMBER, numbers_of, to_float
from sightline.sources.console.vocabulary import (
    EPOCH,
    EPOCHS_PLANNED,
    SECOND_COUNT,
    STEP,
    STEPS_PLANNED,
    label_of,
    name_of,
)

_BAR = (b"it/s", b"s/it", b"%|", b"[==", b"=>", b"\xe2\x94\x81", b"/step", b"[---")
_MAX_NUMBERS = 64
LOSS_WORDS = (b"oss", b"tel:", b"trl:", b"bpb", b"xent")
"""One of these is in every line that tells a loss."""


Numbers = tuple[NDArray[np.bool_] | None, NDArray[np.float64]]
"""Which lines have a number (None: all), and the numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What the numbers of lines of one shape mean."""

    names: tuple[str, ...]
    places: tuple[int, ...]
    """Which of the numbers in the line each name is."""
    count: int
    """How many numbers the line has."""
    tier: int
    """1 for a printed line, 2 for a progress bar that is drawn over and over."""

    has_epoch: bool

    def value(self, name: str, line: bytes) -> float | None:
        """Return one number of a line."""
        numbers = NUMBER.findall(line)
        place = self.places[self.names.index(name)]
        return to_float(numbers[place]) if len(numbers) == self.count else None

    def columns(self, text: bytes, lines: int) -> dict[str, Numbers]:
        """Return the numbers of many lines: by name which lines have it (None: all) and the values there."""
        keep, values = numbers_of(text, lines, self.places, self.count)
        return {name: (keep, own) for name, own in zip(self.names, values, strict=True)}


def stretches(plans: list[Plan | None]) -> Iterator[tuple[bool | None, list[Plan | None]]]:
    """Yield the plans of lines that can be taken together, and whether they name an epoch; None for those without."""
    if plans[0] is not None and plans.count(plans[0]) == len(plans):
        yield plans[0].has_epoch, plans
        return
    for epoch_named, group in groupby(plans, key=lambda plan: None if plan is None else plan.has_epoch):
        yield epoch_named, list(group)


class Plans:
    """The shapes of lines met so far."""

    def __init__(self) -> None:
        self._known: dict[bytes, Plan | None] = {}

    def of_lines(self, text: bytes, lines: Sequence[bytes]) -> list[Plan | None]:
        """Return the plan of each line of a text; None where it tells no loss, or its shape is not worth looking at."""
        if b"\r" in text:  # with what stands between them taken out, two line ends might become one
            text = b"\n".join(lines)
        shapes = text.translate(None, DIGITS).split(b"\n")[: len(lines)]
        first = dict(zip(reversed(shapes), range(len(lines) - 1, -1, -1), strict=True))
        for shape, at in first.items():
            if shape not in self._known and any(word in shape for word in LOSS_WORDS):
                self.of(lines[at])
        return list(map(self._known.get, shapes))

    def of_all(self, text: bytes) -> tuple[Plan | None, int]:
        """Return the plan of lines that are all of one shape, and how many they are; None if they are not."""
        if b"\r" in text:
            return None, 0
        shapes = text.translate(None, DIGITS)
        first = shapes[: shapes.find(b"\n") + 1]
        count, rest = divmod(len(shapes), len(first)) if first else (0, 1)
        if rest or count < 2 or first * count != shapes or not any(word in first for word in LOSS_WORDS):
            return None, 0
        return self.of(text[: text.find(b"\n")]), count

    def of(self, line: bytes) -> Plan | None:
        """Return the plan of a line, None if it tells no loss."""
        shape = line.translate(None, DIGITS)
        try:
            return self._known[shape]
        except KeyError:
            if len(self._known) > 20_000:
                self._known.clear()
            plan = self._known[shape] = _plan(line)
            return plan


def _plan(line: bytes) -> Plan | None:
    """Say what the numbers of a line mean."""
    if len(line) > 4096:
        return None
    matches = list(NUMBER.finditer(line))[:_MAX_NUMBERS]
    text = line.decode("utf-8", "replace")
    lowered = text.lower()
    names: dict[str, int] = {}
    totals: list[int] = []
    previous_end = 0
    for i, match in enumerate(matches):
        between = line[previous_end : match.start()].decode("utf-8", "replace")
        if previous_end and between.strip() in ("/", "of"):
            totals.append(i)
            if STEP not in names and not _named(names, i - 1) and _is_bar(line):
                names[STEP] = i - 1  # a bar's own count, "24/500 [00:10<..."
        else:
            label = label_of(between, adjacent=previous_end > 0)
            name = name_of(label, lowered)
            if name is None and EPOCH in names and SECOND_COUNT.match(between):
                name = STEP
            if name in (STEP, EPOCH) and line[match.end() : match.end() + 1] == b"%":
                name = None
            surer = name == STEP and label.endswith(("step", "steps"))  # than an iteration, which may be a micro-batch
            if name is not None and (name not in names or surer):
                names[name] = i
        previous_end = match.end()
    if not any(name.endswith(("loss", "bpb")) for name in names):
        return None
    if len(matches) == _MAX_NUMBERS:
        return None
    for total, counted in ((STEPS_PLANNED, STEP), (EPOCHS_PLANNED, EPOCH)):
        if (behind := names.get(counted, -1) + 1) in totals:
            names[total] = behind
    return Plan(tuple(names), tuple(names.values()), len(matches), 2 if _is_bar(line) else 1, EPOCH in names)


def _named(names: dict[str, int], place: int) -> bool:
    return place in names.values()


def _is_bar(line: bytes) -> bool:
    return any(mark in line for mark in _BAR)
