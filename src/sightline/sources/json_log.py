"""Training histories kept as one JSON value: a list of entries, lists by metric, or either inside an object."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sightline.errors import MalformedLog
from sightline.runs import Run
from sightline.runs.names import EPOCH_NAMES, STEP_NAMES, is_loss, is_validation
from sightline.sources.files import HEAD_BYTES, as_utf8, head, is_folder, read_whole
from sightline.sources.json_text import parse, parse_file
from sightline.sources.numbers import as_float
from sightline.sources.table import Origin, Table, tells_a_run
from sightline.sources.table_runs import runs_of

NAME = "json"
_DEPTH = 4
_VALUES_LOOKED_AT = 2000
_LOSS_KEY = re.compile(rb'(?:loss|Loss|LOSS|nll|reward)[^"\\]{0,80}"\s{0,8}:\s{0,8}[-0-9NI\[{]')
_LOSS_LIST = re.compile(rb'(?:loss|Loss|LOSS)[^"\\]{0,80}"\s{0,8}:\s{0,8}\[\s{0,16}[-0-9]')
_LISTED = 3


def recognises(path: Path) -> bool:
    """Return whether the file is a JSON value with a history in it; of a long one, whether losses are listed early."""
    if is_folder(path):
        return False
    start = as_utf8(head(path)).lstrip()
    if start[:1] not in (b"{", b"["):
        return False
    named = len(_LOSS_KEY.findall(start))
    if not named or len(start) > HEAD_BYTES - 8:
        return named >= _LISTED or _LOSS_LIST.search(start) is not None
    try:
        return next(_histories(parse(start)), None) is not None
    except ValueError:
        return named >= _LISTED  # broken, but a history


def read_all(path: Path) -> tuple[Run, ...]:
    """Read every run in a JSON history.

    Raises
    ------
    MalformedLog
        If it is no JSON, or no list of numbers in it is called a loss.
    """
    value = parse_file(path, read_whole(path))
    runs: list[Run] = []
    for place, table in _histories(value):
        table.complete = True
        origin = Origin(path, NAME)
        found = runs_of(table, origin)
        if found and place:
            found = tuple(replace(run, name=f"{run.name} {place}") for run in found)
        runs += found
    if not runs:
        raise MalformedLog(
            f"{path}: JSON without a training history; expected a list of objects or lists by metric, with a loss in it"
        )
    return tuple(runs)


def read(path: Path) -> Run:
    """Read the longest run in a JSON history."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))


def _histories(value: Any) -> Iterator[tuple[str, Table]]:
    """Yield each history in a value: the outermost ones, each with the key it stands under."""
    pending: list[tuple[str, Any, int]] = [("", value, 0)]
    found = 0
    met = 0
    while pending:
        place, part, depth = pending.pop(0)
        met += 1
        if met > _VALUES_LOOKED_AT:
            return
        table = _of_entries(part) or _of_lists(part)
        if table is not None:
            found += 1
            yield (place if found > 1 or depth > 1 else "", table)
        elif depth < _DEPTH and isinstance(part, dict):
            pending += [(str(key), inner, depth + 1) for key, inner in part.items() if isinstance(inner, dict | list)]
        elif depth < _DEPTH and isinstance(part, list) and len(part) <= _VALUES_LOOKED_AT:
            pending += [(f"{place}[{i}]", inner, depth + 1) for i, inner in enumerate(part) if isinstance(inner, dict)]


def _of_entries(value: Any) -> Table | None:
    """Return a list of objects as a table if they tell a run."""
    if not isinstance(value, list) or not value:
        return None
    entries = [entry for entry in value if type(entry) is dict]
    if len(entries) < 0.9 * len(value):
        return None
    names = dict.fromkeys(name for entry in entries for name in _numeric_names(entry))
    if not tells_a_run(names):
        return None
    table = Table()
    table.add(entries)
    return table


def _of_lists(value: Any) -> Table | None:
    """Return an object of lists by metric as a table if they tell a run: by themselves, or as train and validation."""
    if not isinstance(value, dict):
        return None
    lists = dict(_flat(value, 1))
    if any(is_loss(name) for name in lists) or _is_split(value):
        lists = dict(_flat(value, 2))
    losses = [len(values) for name, values in lists.items() if is_loss(name)]
    if not losses:
        return None
    longest = max(losses)
    table = Table()
    rows = _spread(lists, longest)
    table.add([{name: column[i] for name, column in rows.items() if i in column} for i in range(longest)])
    return table


def _is_split(value: Mapping[str, Any]) -> bool:
    """Return whether the objects in an object are the parts of one run: ``{"train": {…}, "val": {…}}``."""
    inner = [name for name, part in value.items() if isinstance(part, dict) and any(map(is_loss, part))]
    return len(inner) > 1 and any(is_validation(name) for name in inner)


def _spread(lists: Mapping[str, list[Any]], longest: int) -> dict[str, dict[int, Any]]:
    """Return each list by row: validation values of fewer evaluations stand at the end of their share of the rows."""
    rows = {}
    for name, values in lists.items():
        if len(values) > longest:
            continue
        stride = longest // len(values) if is_validation(name) or name.lower() in (*STEP_NAMES, *EPOCH_NAMES) else 1
        rows[name] = {(i + 1) * stride - 1: value for i, value in enumerate(values)}
    return rows


def _flat(value: Mapping[str, Any], depth: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield the lists of plain values in an object and in the objects in it."""
    for name, inner in list(value.items())[:_VALUES_LOOKED_AT]:
        if isinstance(inner, list) and inner and not isinstance(inner[0], dict | list):
            yield name, inner
        elif isinstance(inner, dict) and depth > 1:
            yield from ((f"{name}/{key}", values) for key, values in _flat(inner, depth - 1))


def _numeric_names(entry: Mapping[str, Any]) -> Iterator[str]:
    for name, value in entry.items():
        if type(value) is dict:
            yield from (f"{name}/{inner}" for inner, number in value.items() if as_float(number) is not None)
        elif as_float(value) is not None:
            yield name
