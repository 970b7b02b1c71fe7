"""Lines that say a loss in words: ``step 10: train loss 2.1, val loss 2.3`` and what else people print.

A number is named by the text before it. A name counts only if every word of it is known, so that prose, file names and
settings are passed over. Lines that differ only in their digits are understood once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from sightline.runs.names import EPOCH_NAMES, STEP_NAMES, canonical, is_loss
from sightline.sources.json_text import parse
from sightline.sources.numbers import as_float, as_step

# Each branch begins with a character of its own, so that the search skips to the next such character; what must not
# stand before it (a letter, a digit) is looked at from there.
_UNSIGNED = rb"(?:[0-9]{0,2}(?:,[0-9]{3}){1,5}(?![0-9])|[0-9]{0,40})(?:\.[0-9]{1,40})?(?:[eE][-+]?[0-9]{1,4})?"
_NUMBER = re.compile(
    rb"[0-9](?<![A-Za-z0-9_.][0-9])" + _UNSIGNED + rb"|[-+](?<![A-Za-z0-9_.][-+])[0-9]" + _UNSIGNED + rb""
    rb"|n(?<=[:= ]n)an(?![A-Za-z0-9_])|i(?<=[:= ]i)nf(?![A-Za-z0-9_])|-inf(?![A-Za-z0-9_])"
    rb"|N(?<=[:= ]N)(?:aN|AN)(?![A-Za-z0-9_])|I(?<=[:= ]I)(?:nf|NF)(?![A-Za-z0-9_])"
)
DIGITS = b"0123456789."
"""Lines that differ in nothing else have one shape."""
_RUN = re.compile(rb"[0-9.]{1,400}")
_RUNS_ONLY = bytes(code if code in DIGITS else 32 for code in range(256))
_DIGIT = re.compile(rb"[0-9]")
_SEGMENT = re.compile(r"[|,;\[\](){}<>\t•·►→—–\"'`]|\s-\s|\s{3,}")
_UNIT = re.compile(r"^[A-Za-z%/]{1,12}(?=[\s,|;:)\]]|$)")
_WORD = re.compile(r"[a-z]+|[0-9]+")
_BAR = (b"it/s", b"s/it", b"%|", b"[==", b"=>", b"\xe2\x94\x81", b"/step", b"[---")
_TRAIN = frozenset({"train", "training", "tr", "trn", "trl"})
_VALIDATION = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev", "tel"})
_TEST = frozenset({"test", "testing"})
_LOSS = frozenset({"loss", "losses", "nll", "xent", "trl", "tel", "bpb", "crossentropyloss"})
_FILLING = frozenset(
    {
        *("avg", "average", "averaged", "mean", "total", "current", "running", "smooth", "smoothed", "value", "epoch"),
        *("step", "iter", "batch", "per", "token", "lm", "mlm", "clm", "ce", "cross", "entropy", "the", "on", "set"),
        *("is", "of", "at", "masked", "model", "global", "sft", "dpo", "log", "likelihood", "negative", "data"),
        "reduced",
    }
)
_STEP = frozenset({"step", "steps", "iter", "iters", "iteration", "iterations", "it", "update", "updates", "s"})
_STEP_BEFORE = frozenset({"global", "training", "train", "optimizer", "optimization", "current", "at", "completed"})
_EPOCH = frozenset({"epoch", "ep", "epochs"})
_OTHERS = {
    "lr": "learning_rate",
    "learning rate": "learning_rate",
    "grad norm": "grad_norm",
    "gradient norm": "grad_norm",
    "gnorm": "grad_norm",
    "norm": "grad_norm",
}
_ACCURACY = frozenset({"acc", "accuracy"})
_VALIDATION_LINE = re.compile(r"(?<![a-z_])(?:val|valid|validation|validating|eval|evaluation|dev)(?![a-z])")
_TRAIN_LINE = re.compile(r"(?<![a-z_])train(?:ing)?(?![a-z])")
_COUNTED = re.compile(
    r"\b(epoch|ep|step|iter|iteration)s?(?:\s?\([a-z]{1,10}\))?\s{0,4}(?:\[\s{0,8}|\]\[\s{0,8})$", re.IGNORECASE
)
"""A count in brackets behind its name: ``Epoch [1/5]``, ``Iter(train) [  10/9840]``."""
_SECOND_COUNT = re.compile(r"^\]\s?\[\s{0,8}$")
"""Between the epoch and the step in ``Epoch(train)  [1][  50/100]``."""
_SPLIT = re.compile(r"^(?:train|valid|test)_")
_MAX_NUMBERS = 64
LOSS_WORDS = (b"oss", b"tel:", b"trl:", b"bpb", b"xent")
"""One of these is in every line that tells a loss."""
STEP, EPOCH, TOTAL = "_step", "_epoch", "_total"
"""What a number counts, among the metrics' names."""


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
        numbers = _NUMBER.findall(line)
        place = self.places[self.names.index(name)]
        return _as_float(numbers[place]) if len(numbers) == self.count else None

    def columns(self, lines: Sequence[bytes]) -> dict[str, Numbers]:
        """Return the numbers of many lines: by name which lines have it (None: all) and the values there."""
        plain = self._plain_columns(lines)
        if plain is not None:
            return plain
        numbers = _NUMBER.findall(b"\n".join(lines))
        if len(numbers) == self.count * len(lines):
            return {
                name: (None, np.array(list(map(_as_float, numbers[place :: self.count])), dtype=np.float64))
                for name, place in zip(self.names, self.places, strict=True)
            }
        found = [_NUMBER.findall(line) for line in lines]
        # A number more, glued to a line by another process, shifts the places of the others.
        keep = np.array([len(each) == self.count for each in found], dtype=np.bool_)
        return {
            name: (keep, np.array([_as_float(each[place]) for each in found if len(each) == self.count]))
            for name, place in zip(self.names, self.places, strict=True)
        }

    def _plain_columns(self, lines: Sequence[bytes]) -> dict[str, Numbers] | None:
        """Return the numbers of many lines if they are plain digits at the same place among the digits of each line.

        None if one has a sign, an exponent, a thousands separator, or is a word.
        """
        runs = [match.span() for match in _RUN.finditer(lines[0])]
        numbers = [match.span() for match in _NUMBER.finditer(lines[0])]
        wanted = [numbers[place] for place in self.places if place < len(numbers)]
        if len(wanted) < len(self.places) or not set(wanted) <= set(runs):
            return None
        found = b"\n".join(lines).translate(_RUNS_ONLY).split()
        if len(found) != len(runs) * len(lines):
            return None
        try:
            return {
                name: (None, np.array(list(map(float, found[runs.index(span) :: len(runs)]))))
                for name, span in zip(self.names, wanted, strict=True)
            }
        except ValueError:  # two dots, or nothing else
            return None


def stretches(plans: list[Plan | None]) -> Iterator[tuple[bool | None, list[Plan | None]]]:
    """Yield the plans of lines that can be taken together, and whether they name an epoch; None for those without."""
    if plans[0] is not None and plans.count(plans[0]) == len(plans):
        yield plans[0].has_epoch, plans
        return
    for epoch_named, group in groupby(plans, key=lambda plan: None if plan is None else plan.has_epoch):
        yield epoch_named, list(group)


def _as_float(number: bytes) -> float:
    try:
        return float(number)
    except ValueError:
        return float(number.replace(b",", b""))


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
    matches = list(_NUMBER.finditer(line))[:_MAX_NUMBERS]
    text = line.decode("utf-8", "replace")
    lowered = text.lower()
    names: dict[str, int] = {}
    previous_end = 0
    for i, match in enumerate(matches):
        between = line[previous_end : match.start()].decode("utf-8", "replace")
        if previous_end and between.strip() in ("/", "of"):
            names.setdefault(TOTAL, i)
            if STEP not in names and not _named(names, i - 1) and _is_bar(line):
                names[STEP] = i - 1  # a bar's own count, "24/500 [00:10<..."
        else:
            label = _label(between, adjacent=previous_end > 0)
            name = _name(label, lowered)
            if name is None and EPOCH in names and _SECOND_COUNT.match(between):
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
    return Plan(tuple(names), tuple(names.values()), len(matches), 2 if _is_bar(line) else 1, EPOCH in names)


def _named(names: dict[str, int], place: int) -> bool:
    return place in names.values()


def _is_bar(line: bytes) -> bool:
    return any(mark in line for mark in _BAR)


def _label(between: str, *, adjacent: bool) -> str:
    """Return the name in front of a number: the last piece of the text, without the unit of the number before."""
    if (counted := _COUNTED.search(between)) is not None:
        return counted[1].lower()
    if adjacent:
        between = _UNIT.sub("", between, count=1)
    return _SEGMENT.split(between.rstrip())[-1].strip(" :=#*@~\t").lower()


def _name(label: str, line: str) -> str | None:
    """Return what a label names, None if it is nothing known."""
    words = _WORD.findall(label.replace("_", " "))
    if not words or len(words) > 8:
        return None
    known = set(words)
    if known & _EPOCH and len(words) == 1:
        return EPOCH
    if (
        words[-1] in _STEP
        and known - {words[-1]} <= _STEP_BEFORE
        and (words[-1] != "s" or "el:" in line or "trl:" in line)
    ):
        return STEP
    if known & _LOSS and known <= _LOSS | _TRAIN | _VALIDATION | _TEST | _FILLING:
        return _loss(known, line)
    if len(words) == 1 and "loss" in line and known & (_TRAIN | _VALIDATION):  # "loss train: 1.2, val: 1.3"
        return _loss(known, line)
    if (joined := " ".join(words)) in _OTHERS:
        return _OTHERS[joined]
    if known & _ACCURACY and known <= _ACCURACY | _TRAIN | _VALIDATION | _TEST | _FILLING:
        return _role(known, line, "accuracy")
    return None


def _loss(words: set[str], line: str) -> str:
    return _role(words, line, "bpb" if "bpb" in words else "loss")


def _role(words: set[str], line: str, metric: str) -> str:
    """Return the metric with the rows it is measured on, from its own words or from the rest of the line."""
    if words & _TEST:
        return f"test_{metric}"
    if words & _VALIDATION:
        return f"eval_{metric}"
    if words & _TRAIN:
        return metric
    validates = _VALIDATION_LINE.search(line) and not _TRAIN_LINE.search(line)
    return f"eval_{metric}" if validates and f"val_{metric}" not in line else metric


def printed_json(line: bytes) -> dict[str, float] | None:
    """Return the metrics of a JSON object in a line (fairseq's and many people's own loggers'), None if it has no loss.

    What counts it is named STEP and EPOCH; ``valid_num_updates`` counts as ``num_updates`` does.
    """
    try:
        entry = parse(line[line.index(b'{"') : line.rindex(b"}") + 1])
    except ValueError:
        return None
    if type(entry) is not dict:
        return None
    numbers = {name: number for name, value in entry.items() if (number := as_float(value)) is not None}
    plain = {name: _SPLIT.sub("", name.lower(), count=1) for name in numbers}
    counts = {plain[name]: number for name, number in numbers.items()}
    row: dict[str, float] = {}
    for known, names in ((STEP, STEP_NAMES), (EPOCH, EPOCH_NAMES)):
        counted = next((step for name in names if (step := as_step(counts.get(name))) is not None), None)
        if counted is not None:
            row[known] = counted
    for name, number in numbers.items():
        if plain[name] not in (*STEP_NAMES, *EPOCH_NAMES):
            row.setdefault(canonical(name), number)
    return row if any(map(is_loss, row)) else None


class PrintedTable:
    """A table printed as text, as notebooks show the Trainer's progress: a header, then rows of numbers."""

    def __init__(self) -> None:
        self._names: list[str] | None = None

    @property
    def open(self) -> bool:
        """Whether the last line was part of a table."""
        return self._names is not None

    def row(self, line: bytes) -> dict[str, float] | None:
        """Take a line: a header begins a table, a row of as many numbers continues it, anything else ends it."""
        if self._names is None and (b"oss" not in line or _DIGIT.search(line)):
            return None
        cells = _cells(line)
        if self._names is None:
            self._names = _column_names(cells)
            return None
        if not cells:
            return None
        values = [_cell(cell) for cell in cells]
        if len(cells) != len(self._names) or values[0] is None or sum(value is not None for value in values) < 2:
            if not set(line) <= set(b"-+|=: \t"):  # a rule under the header
                self._names = _column_names(cells) if b"oss" in line else None
            return None
        return {name: value for name, value in zip(self._names, values, strict=True) if name and value is not None}


def _cells(line: bytes) -> list[str]:
    text = line.decode("utf-8", "replace").strip().strip("|")
    if "\t" in text:
        return [cell.strip() for cell in text.split("\t")]
    if "|" in text:
        return [cell.strip() for cell in text.split("|")]
    return [cell for cell in re.split(r"\s{2,}", text) if cell] if "  " in text else text.split()


def _column_names(cells: Sequence[str]) -> list[str] | None:
    """Return the metrics of a header's columns, "" for one that is none; None if it is no header."""
    names = []
    for cell in cells:
        name = _name(cell.lower(), "")
        names.append(name or "")
    if len(names) < 2 or names[0] not in (STEP, EPOCH) or not any(name.endswith("loss") for name in names):
        return None
    return [name if name not in names[:i] else "" for i, name in enumerate(names)]


def _cell(cell: str) -> float | None:
    match = _NUMBER.fullmatch(cell.encode())
    return _as_float(match[0]) if match else None
