"""A log on disk to a Run: one module a format, tried in the order of READERS.

A reader's module holds

``NAME``
    what ``Run.format`` says,
``recognises(path) -> bool``
    whether the content of a file, or a folder as a whole, is of its format; looks at no more than the first 64 KiB,
``read(path) -> Run``
    the run in it; of several the longest,
``read_all(path) -> tuple[Run, ...]``
    all runs in it in the order they were logged; only where one path can hold several,
``covers(folder, path) -> bool``
    whether ``path``, somewhere below a folder that was read as a run, belongs to that run; only where folders are read,
``files(path) -> list[Path]``
    the files a folder's run is read from; only where folders are read,
``Parser(path)``
    reads a growing file: ``feed(piece)``, ``end()``, ``runs()``; where a file can be followed without reading it again.

Content decides before the file name. A module is imported when a path is first held against it; it raises
``SourceError`` or a subclass and nothing else.
"""

from __future__ import annotations

from sightline.sources.cache import Cache, cache_folder
from sightline.sources.finding import Found, find
from sightline.sources.readers import READERS, Reader
from sightline.sources.reading import ReadError, judged_by, read, read_runs

__all__ = [
    "READERS",
    "Cache",
    "Found",
    "ReadError",
    "Reader",
    "cache_folder",
    "find",
    "judged_by",
    "read",
    "read_runs",
]
