"""READERS: every format, the most specific first."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Protocol

from sightline.runs import Run


class Parser(Protocol):
    """What a format offers whose files can be read piece by piece."""

    def feed(self, piece: bytes) -> None:
        """Read what was appended."""
        ...

    def end(self) -> None:
        """Take the last line even if no line end follows it."""
        ...

    def runs(self) -> tuple[Run, ...]:
        """Return the runs as they stand."""
        ...


class Reader:
    """A format: its module, imported when it is first needed, because most logs need only one or two.

    Parameters
    ----------
    module : str
        Name in this package, whose head says what the module of a reader holds.
    name : str, optional
        What ``Run.format`` says, where it is not the module's name.
    """

    def __init__(self, module: str, name: str | None = None) -> None:
        self.module_name = module
        self.name = name or module

    def __repr__(self) -> str:
        return f"Reader({self.module_name!r}, {self.name!r})"

    @property
    def module(self) -> ModuleType:
        """The module that reads the format."""
        return import_module(f"sightline.sources.{self.module_name}")

    def recognises(self, path: Path) -> bool:
        """Return whether the content of a file, or a folder as a whole, is of this format.

        Raises
        ------
        SourceError
            If it cannot be opened.
        """
        return bool(self.module.recognises(path))

    def runs(self, path: Path) -> tuple[Run, ...]:
        """Return every run in a path.

        Raises
        ------
        SightlineError
            If it cannot be read.
        """
        read_all = getattr(self.module, "read_all", None)
        return tuple(read_all(path)) if read_all else (self.module.read(path),)

    def covers(self, folder: Path, path: Path) -> bool:
        """Return whether ``path``, below a folder that was read as a run, belongs to that run."""
        decides = getattr(self.module, "covers", None)
        return path != folder and (decides is None or decides(folder, path))

    def files(self, path: Path) -> list[Path]:
        """Return the files that are read for a path: while they are the same, so is the run."""
        decides = getattr(self.module, "files", None)
        return decides(path) if decides else [path]

    @property
    def parser(self) -> Callable[[Path], Parser] | None:
        """What reads a growing file, made with its path; None where the format's files are written anew each time."""
        return getattr(self.module, "Parser", None)


HUB = Reader("hub")
"""Models of the Hugging Face hub: no path on this machine, so no search meets one."""

READERS: tuple[Reader, ...] = (
    Reader("journal"),
    Reader("trainer_state"),
    Reader("mlflow"),
    Reader("tensorboard"),
    Reader("wandb"),
    Reader("trackio"),
    Reader("mlflow_db", "mlflow"),
    Reader("jsonl_log", "jsonl"),
    Reader("json_log", "json"),
    Reader("csv_log", "csv"),
    Reader("console"),
)
"""Every format, the most specific first."""


def reader_of(path: Path) -> Reader | None:
    """Return the first reader that recognises a file or folder.

    Raises
    ------
    SourceError
        If it cannot be opened.
    """
    return next((reader for reader in READERS if reader.recognises(path)), None)
