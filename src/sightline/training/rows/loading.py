"""Datasets to Examples: local files, folders and patterns, or one dataset of the hub."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from sightline.errors import DataError, MissingExtra
from sightline.training.rows.example import Example
from sightline.training.rows.files import SUFFIXES, read_records
from sightline.training.rows.shapes import Columns, to_examples

_HUB_ID = re.compile(r"^[\w.-]+(?:/[\w.-]+)?$")


def load_examples(
    sources: Sequence[str],
    columns: Columns | None = None,
    *,
    split: str = "train",
    config: str | None = None,
    limit: int | None = None,
    base: Path | None = None,
) -> list[Example]:
    """Load every row of one or several sources.

    Parameters
    ----------
    sources : sequence of str
        Files, folders, patterns such as ``data/*.jsonl``, or a dataset of the hub (``owner/name``).
    columns : Columns, optional
        Columns named by the recipe.
    split, config : str
        Of a dataset of the hub.
    limit : int, optional
        Stop after so many rows.
    base : path, optional
        Folder that relative paths are also looked for in (that of the recipe).

    Returns
    -------
    list of Example
        At least one, in file order.

    Raises
    ------
    DataError
        Naming file and line, what was found and what was expected.
    """
    columns = columns or Columns()
    examples: list[Example] = []
    for source in sources:
        left = None if limit is None else limit - len(examples)
        if left == 0:
            break
        files = local_files(source, base)
        if files:
            for file in files:
                examples.extend(islice(to_examples(read_records(file), columns), left))
                left = None if limit is None else limit - len(examples)
        elif _HUB_ID.match(source) and Path(source).suffix.lower() not in SUFFIXES:
            examples.extend(islice(to_examples(_hub_records(source, config, split), columns), left))
        else:
            raise DataError(f"{source}: no such file or folder{_nearby(source)}")
    if not examples:
        raise DataError(f"{', '.join(sources)}: no rows found")
    return examples


def local_files(source: str, base: Path | None = None) -> list[Path]:
    """Return the files a source names, sorted; empty where nothing local has that name.

    Raises
    ------
    DataError
        If it is a folder without any file of a known type.
    """
    candidates = [Path(source).expanduser()]
    if base is not None and not candidates[0].is_absolute():
        candidates.append(base / source)
    for path in candidates:
        if path.is_dir():
            return _folder_files(path)
        if path.exists():
            return [path]
        if any(mark in source for mark in "*?["):
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - the pattern may be absolute
            if found := [Path(match) for match in matches if Path(match).is_file()]:
                return found
    return []


def _folder_files(folder: Path) -> list[Path]:
    """Training files of a folder: those named train* where there are any, else all."""
    files = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise DataError(f"{folder}: no file of a known type ({', '.join(SUFFIXES)}) in this folder")
    train = [f for f in files if re.match(r"train(?:[._-]|$)", f.stem)]
    if train:
        return train
    if len({f.suffix.lower() for f in files}) > 1 or any(
        re.match(r"(?:val|valid|validation|dev|test|eval)(?:[._-]|$)", f.stem) for f in files
    ):
        raise DataError(
            f"{folder}: which of {', '.join(f.name for f in files[:6])} is the training file? Name it in dataset"
        )
    return files


def validation_files(sources: Sequence[str], base: Path | None = None) -> list[Path]:
    """Return the validation files that stand in a folder beside its training files; empty where there are none."""
    folders = [p for s in sources[:1] for p in (Path(s).expanduser(), *([base / s] if base else [])) if p.is_dir()]
    if len(sources) != 1 or not folders:
        return []
    named = (f for f in folders[0].iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())
    return sorted(f for f in named if re.match(r"(?:val|valid|validation|dev|eval)(?:[._-]|$)", f.stem))


def _nearby(source: str) -> str:
    """Files beside a path that was not found."""
    folder = Path(source).expanduser().parent
    if not folder.is_dir():
        return f" (there is no folder {folder} either)" if str(folder) != "." else ""
    names = sorted(f.name for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)[:5]
    return f"; in {folder} there are {', '.join(names)}" if names else ""


def _hub_records(name: str, config: str | None, split: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows of a dataset of the hub, through the datasets library."""
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra(f"dataset {name}", "datasets", "train") from error
    try:
        dataset: Iterable[dict[str, Any]] = load_dataset(name, config, split=split)
    except Exception as error:  # the library raises a dozen kinds, of several packages
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{name}: neither a file here nor a dataset that can be loaded from the hub: {reason}"
        ) from None
    for i, record in enumerate(dataset):
        yield dict(record), f"{name} ({split}), row {i + 1}"
