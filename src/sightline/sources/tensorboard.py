"""TensorBoard: an event file, or a log folder whose event files are one run and its restarts."""

from __future__ import annotations

import re
import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sightline.errors import MalformedLog, SourceError
from sightline.runs import Run
from sightline.sources.crc32c import masked_crc32c
from sightline.sources.event_records import EventRecords
from sightline.sources.files import head, is_folder, is_regular, open_regular
from sightline.sources.json_text import parse
from sightline.sources.table import Origin, Table, Unit, plain_settings
from sightline.sources.table_runs import runs_of

NAME = "tensorboard"
_EVENT_FILE = re.compile(r"events\.out\.tfevents\.([0-9]{1,19})")
"""In a file's name, behind what its writer put in front of it."""
_CHUNK_BYTES = 4 << 20
_MAX_GROUPED = 200
_KERAS = {"train": "", "validation": "eval_"}
_KERAS_EPOCH = "epoch_"


def recognises(path: Path) -> bool:
    """Return whether ``path`` is an event file, or a folder that directly holds some (Keras: in train, validation)."""
    if is_folder(path):
        return bool(_event_files(path)) or _is_keras(path)
    start = head(path)
    if len(start) < 12:
        return False
    length, crc = struct.unpack_from("<QI", start)
    return (crc == masked_crc32c(start[:8]) and length > 0) or bool(_EVENT_FILE.search(path.name))


def covers(folder: Path, path: Path) -> bool:
    """Return whether a path below a log folder belongs to its run: its event files, Keras' folders, grouped scalars."""
    if path.parent == folder:
        return bool(_EVENT_FILE.search(path.name)) or _is_part(folder, path)
    return path.parent.parent == folder and _is_part(folder, path.parent)


def _is_part(folder: Path, below: Path) -> bool:
    """Return whether a folder in a log folder holds some of its run's metrics."""
    return (below.name in _KERAS and _is_keras(folder)) or _grouped_tag(below) is not None


def files(path: Path) -> list[Path]:
    """Return the event files that a log folder's run is read from."""
    if not is_folder(path):
        return [path]
    grouped = [file for below in _grouped_folders(path) for file in _event_files(below)]
    return [*_event_files(path), *grouped] or [file for name in _KERAS for file in _event_files(path / name)]


class Parser:
    """Reads a growing event file piece by piece."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events = EventRecords()
        self.table = Table()
        self.steps = array("q")
        """Step of every row of the table: one a record with scalars."""
        self.files: list[tuple[int, Path]] = []
        """The files of a folder, each with its first row."""
        self.settings: list[tuple[int, dict[str, Any]]] = []
        """What the Trainer wrote of its arguments, each with the row it stands before."""
        self.prefix = ""
        self.group: str | None = None
        """Name of the folder of grouped scalars that is being read: it names the metric."""
        self.unit: Unit = "step"

    def feed(self, piece: bytes) -> None:
        """Read what was appended."""
        found = self.events.feed(piece)
        for text in self.events.texts:
            self.settings.append((len(self.steps), _settings(text)))
        self.events.texts.clear()
        if not found:
            return
        numbers, first = np.unique(np.concatenate([s.records for s in found.values()]), return_index=True)
        steps = np.concatenate([s.steps for s in found.values()])[first]
        for tag, scalars in found.items():
            rows = np.searchsorted(numbers, scalars.records) + len(self.steps)
            if (name := self._name(tag)) is not None:
                self.table.add_values(name, rows, scalars.values)
        self.steps.frombytes(steps.tobytes())
        self.table.rows = len(self.steps)

    def end(self) -> None:
        """Take it that no more comes; a record without its end is not one."""
        self.table.complete = True

    def next_file(self, file: Path) -> None:
        """Go on with another file of the same log: what a torn record left is dropped."""
        damaged = self.events.damaged
        self.events = EventRecords()
        self.events.damaged = damaged
        self.files.append((len(self.steps), file))

    def runs(self) -> tuple[Run, ...]:
        """Return the runs as they stand."""
        damage = []
        if self.events.damaged:
            damage.append(
                f"{self.path}: {self.events.damaged} damaged places; the records before and after them are read"
            )
        if self.events.torn:
            damage.append(f"{self.path}: ends inside a record: still written, or cut short")
        origin = Origin(
            self.path, NAME, name=_name_of(self.path), damage=damage, files=self.files, settings=self.settings
        )
        return runs_of(self.table, origin, (self.unit, np.array(self.steps, dtype=np.int64)))

    def _name(self, tag: str) -> str | None:
        """Return the metric of a tag; of a Keras log only what is counted in epochs."""
        if self.group is not None:
            return self.group
        if self.unit == "epoch":
            return self.prefix + tag[len(_KERAS_EPOCH) :] if tag.startswith(_KERAS_EPOCH) else None
        return tag


def read_all(path: Path) -> tuple[Run, ...]:
    """Read every run in an event file or a log folder.

    Event files of one writer in one folder are read in the order of their times as one log; where the steps begin anew
    in it, another run begins, and where they go back part of the way it was resumed.

    Raises
    ------
    SourceError
        If nothing can be read.
    MalformedLog
        If no intact record holds a scalar.
    """
    if not is_folder(path):
        parser = _parsed(path, [path])
        parser.end()
        runs = parser.runs()
    elif _event_files(path):
        owners: dict[str, list[Path]] = {}
        for file in _event_files(path):
            match = _EVENT_FILE.search(file.name)
            owners.setdefault(file.name[: match.start()] if match else "", []).append(file)
        runs = _runs_of_owners(path, list(owners.values()))
    else:
        runs = _keras(path)
    if not runs:
        raise MalformedLog(
            f"{path}: an event file without scalars; expected at least a loss (images and text are not read)"
        )
    return runs


def read(path: Path) -> Run:
    """Read the longest run in an event file or a log folder."""
    return max(read_all(path), key=lambda run: sum(map(len, run.curves.values())))


def _runs_of_owners(folder: Path, groups: Sequence[Sequence[Path]]) -> tuple[Run, ...]:
    """Return the runs of each writer's files; a writer whose files cannot be read does not hide the others."""
    runs: list[Run] = []
    errors: list[SourceError] = []
    for files in groups:
        try:
            parser = _parsed(files[0] if len(files) == 1 < len(groups) else folder, files)
            if len(groups) == 1:
                _read_grouped(folder, parser)
            parser.end()
            runs += parser.runs()
        except SourceError as error:
            errors.append(error)
    if errors and not runs:
        raise errors[0]
    lost = tuple(map(str, errors))
    return tuple(replace(run, damage=(*run.damage, *lost)) for run in runs)


def _parsed(path: Path, files: Iterable[Path], parser: Parser | None = None) -> Parser:
    """Return a parser that has read some files one after the other."""
    parser = parser or Parser(path)
    for file in files:
        if file != path:
            parser.next_file(file)
        with open_regular(file) as stream:
            while piece := stream.read(_CHUNK_BYTES):
                parser.feed(piece)
                if len(piece) < _CHUNK_BYTES and (place := parser.events.search_again()) is not None:
                    stream.seek(place)
    return parser


def _read_grouped(folder: Path, parser: Parser) -> None:
    """Add the scalars that ``add_scalars("loss", {"train": …, "val": …})`` put into folders of their own."""
    for below in _grouped_folders(folder):
        parser.group = below.name
        _parsed(folder, _event_files(below), parser)
    parser.group = None


def _grouped_folders(folder: Path) -> list[Path]:
    try:
        below = sorted(path for path in folder.iterdir() if is_folder(path))
    except OSError:
        return []
    return [path for path in below[:_MAX_GROUPED] if _grouped_tag(path) is not None]


def _grouped_tag(folder: Path) -> str | None:
    """Return the tag of grouped scalars if a folder holds only such: its name is the tag and the name of the group."""
    files = _event_files(folder)
    if not files or "_" not in folder.name:
        return None
    tags = list(EventRecords().feed(head(files[0])))
    return tags[0] if len(tags) == 1 and folder.name.startswith(tags[0].replace("/", "_") + "_") else None


def _keras(folder: Path) -> tuple[Run, ...]:
    """Return the run whose training and validation metrics Keras wrote into two folders."""
    parser = Parser(folder)
    parser.unit = "epoch"
    for name, prefix in _KERAS.items():
        parser.prefix = prefix
        _parsed(folder, _event_files(folder / name), parser)
    parser.end()
    return parser.runs()


def _is_keras(folder: Path) -> bool:
    return not _event_files(folder) and all(is_folder(folder / name) and _event_files(folder / name) for name in _KERAS)


def _event_files(folder: Path) -> list[Path]:
    """Return the event files directly in a folder, by the time in their names."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
    found = [(int(match[1]), name) for name in names if (match := _EVENT_FILE.search(name))]
    return [path for _, name in sorted(found) if is_regular(path := folder / name)]


def _settings(record: bytes) -> dict[str, Any]:
    """Return the plain settings in a record that holds the Trainer's arguments as JSON."""
    begin, end = record.find(b"{"), record.rfind(b"}")
    try:
        value = parse(record[begin : end + 1])
    except ValueError:
        return {}
    return plain_settings(value) if isinstance(value, dict) else {}


def _name_of(path: Path) -> str:
    """Return the name of a log: its folder, which is how TensorBoard names runs."""
    match = _EVENT_FILE.search(path.name)
    if match is None:
        return path.stem
    return path.name[: match.start()].rstrip("_.- ") or path.parent.name or path.name
