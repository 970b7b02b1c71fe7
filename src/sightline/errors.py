"""Every error Sightline raises on purpose, as one tree.

SightlineError           exit code 3: something could not be read, run or judged
  SourceError            a log could not be read
    UnknownLogFormat     no reader knows the content
    MalformedLog         the format is known, the content is broken
  JournalError           the run folder cannot be written as asked
    RunFolderInUse       another living process records into it
    RunFolderExists      it holds another run, and neither resume nor overwrite was asked
  TooFewPoints           a test needs more evaluations than the curve has
  DataError              rows that cannot be trained or evaluated on
  ModelError             a model or tokenizer that cannot be loaded or used
  CheckpointError        a checkpoint that is missing, incomplete or damaged
  TrainingFailed         the fine-tune itself could not go on
  MissingExtra           a command needs packages that are not installed
  UsageError             exit code 2: a wrong use of the command line
    RecipeError          a key or value of a training recipe that cannot be

Exit code 1 is no error: it is a verdict against the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class SightlineError(Exception):
    """Anything Sightline refuses or cannot do; its text is one line for a person."""

    exit_code = 3


class SourceError(SightlineError):
    """A log could not be read."""


class UnknownLogFormat(SourceError):
    """No reader recognises the content of a file or folder."""

    def __init__(self, path: Path, tried: Sequence[str] = ()) -> None:
        known = f" (tried: {', '.join(tried)})" if tried else ""
        super().__init__(f"{path}: no training log that Sightline knows{known}")


class MalformedLog(SourceError):
    """A log of a known format whose content is broken."""


class JournalError(SightlineError):
    """A run folder cannot be opened for recording."""


class RunFolderInUse(JournalError):
    """Another living process records into the run folder."""


class RunFolderExists(JournalError):
    """The folder holds another run, and neither resume nor overwrite was asked."""

    exit_code = 2


class TooFewPoints(SightlineError):
    """A test needs more evaluations than the curve has."""


class DataError(SightlineError):
    """Rows that cannot be trained or evaluated on."""


class ModelError(SightlineError):
    """A model or tokenizer that cannot be loaded or used."""


class CheckpointError(SightlineError):
    """A checkpoint that is missing, incomplete or damaged."""


class TrainingFailed(SightlineError):
    """The fine-tune itself could not go on."""


class MissingExtra(SightlineError):
    """A command needs packages that are not installed.

    Parameters
    ----------
    what : str
        What was asked for, for example ``"`sightline train`"``.
    package : str
        The import that failed.
    extra : str
        The extra of the distribution that brings it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs {package}: pip install 'sightline[{extra}]'")


class UsageError(SightlineError):
    """A wrong use of the command line."""

    exit_code = 2


class RecipeError(UsageError):
    """A key or value of a training recipe that cannot be."""
