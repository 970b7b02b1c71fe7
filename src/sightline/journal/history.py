"""history.parquet: the curves of an ended run as columns; a copy of the journal, never the truth.

One row a point: ``run_id`` (str), ``metric`` (str), ``step`` (int64), ``value`` (float64), sorted by metric and step;
superseded points are left out, NaN and infinities are values. The columns are the same for every run, so that
``select * from 'outputs/*/sightline/history.parquet'`` works across runs.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sightline.errors import JournalError
from sightline.journal.files import sync_folder
from sightline.journal.reader import JournalFollower
from sightline.runs import Run

FILE_NAME = "history.parquet"


def write_history(run: Run, run_id: str, path: Path) -> None:
    """Write the curves of a run: the old file or the whole new one is there, whatever happens meanwhile.

    Parameters
    ----------
    run : Run
    run_id : str
        Goes into every row, so that runs stay apart when files are read together.
    path : Path
        The file to write.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    import polars as pl  # 40 MB and 0.1 s that only the end of a run needs

    names = sorted(run.curves)
    curves = [run.curves[name] for name in names]
    lengths = [len(curve) for curve in curves]
    frame = pl.DataFrame(
        {
            "metric": pl.Series(np.repeat(np.array(names, dtype=object), lengths), dtype=pl.String),
            "step": np.concatenate([curve.steps for curve in curves] or [np.empty(0, np.int64)]),
            "value": np.concatenate([curve.values for curve in curves] or [np.empty(0, np.float64)]),
        }
    ).select(pl.lit(run_id).alias("run_id"), "metric", "step", "value")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            frame.write_parquet(file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def rebuild(path: Path) -> Path:
    """Write history.parquet anew from the journal beside it.

    Parameters
    ----------
    path : Path
        The output folder, its ``sightline`` folder, or the journal.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    SourceError
        If there is no journal, or nothing in it is intact.
    JournalError
        If the file cannot be written.
    """
    follower = JournalFollower(path)
    run = follower.read()
    history = follower.journal.with_name(FILE_NAME)
    try:
        write_history(run, follower.assembler.id or "", history)
    except OSError as error:
        raise JournalError(f"{history}: {error.strerror or error}") from None
    return history
