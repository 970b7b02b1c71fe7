"""Claiming a run folder: who records there, what stands there already."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from sightline.errors import MalformedLog, RunFolderExists, RunFolderInUse, SourceError, UsageError
from sightline.journal import FOLDER
from sightline.journal.assembly import RunAssembler
from sightline.journal.files import LockedElsewhere, open_regular
from sightline.journal.history import FILE_NAME as HISTORY_NAME
from sightline.journal.process import is_alive
from sightline.journal.reader import JournalFollower
from sightline.journal.writer import HEAD_BYTES, JournalWriter

_DYING_S = 1.0
"""How long to wait for a process that is dead already to let its lock go."""


def claim(writer: JournalWriter, output_dir: Path, *, resume: bool, overwrite: bool) -> RunAssembler | None:
    """Open and lock a run folder for one recorder.

    Parameters
    ----------
    writer : JournalWriter
        Open afterwards, or with a problem where the disk refuses; positioned behind what is there.
    output_dir : Path
    resume, overwrite : bool
        What to do with a run that is there.

    Returns
    -------
    RunAssembler or None
        The run to be resumed, None for a fresh start.

    Raises
    ------
    RunFolderInUse, RunFolderExists, UsageError, MalformedLog
        As ``Recorder.open``.
    """
    if resume and overwrite:
        raise UsageError(f"{output_dir}: resume and overwrite exclude each other")
    _lock(writer, output_dir)
    try:
        earlier = _earlier_run(writer, output_dir)
        if earlier is None:
            return None
        if not writer.journal.has_lock and earlier.is_running() and earlier.process.get("pid") != os.getpid():
            raise _in_use(output_dir, earlier)
        if not (resume or overwrite):
            raise RunFolderExists(
                f"{output_dir}: {_what_is_there(earlier)}; resume it, overwrite it, or choose another folder"
            )
    except BaseException:
        writer.release()
        raise
    if overwrite:
        _clear(writer)
        return None
    with contextlib.suppress(OSError), open_regular(writer.journal.path) as file:
        writer.head = file.read(HEAD_BYTES)
    return earlier


def _lock(writer: JournalWriter, output_dir: Path) -> None:
    """Open and lock the journal; a process that is dying gets a moment."""
    give_up = time.monotonic() + _DYING_S
    while True:
        try:
            writer.open()
            return
        except LockedElsewhere:
            holder = _read_journal(output_dir)
            if (holder is not None and is_alive(holder.process)) or time.monotonic() > give_up:
                raise _in_use(output_dir, holder) from None
            time.sleep(0.05)


def _in_use(output_dir: Path, holder: RunAssembler | None) -> RunFolderInUse:
    """Say who records into the folder."""
    process = {} if holder is None else holder.process
    if process.get("pid") == os.getpid():
        who = "this very process records into it already: end that run first"
    elif is_alive(process):
        who = f"process {process.get('pid')} records into it: wait for its end"
    else:
        who = (
            f"another process holds its journal (the last to record was process {process.get('pid')} "
            f"on {process.get('host')})"
        )
    return RunFolderInUse(f"{output_dir}: {who}, or choose another folder")


def _earlier_run(writer: JournalWriter, output_dir: Path) -> RunAssembler | None:
    """Return the run in the folder, None if there is none."""
    if writer.journal.is_open and writer.journal.size() == 0:
        return None
    return _read_journal(output_dir)


def _read_journal(output_dir: Path) -> RunAssembler | None:
    """Read the journal of a folder as far as it is there and can be read."""
    try:
        follower = JournalFollower(output_dir / FOLDER)
    except SourceError:
        return None
    assembler = follower.assembler
    try:
        for chunk in follower.chunks():
            assembler.feed(chunk)
    except MalformedLog:
        raise
    except SourceError:
        return None
    assembler.finish()
    assembler.note_damaged_rows()
    return assembler


def _what_is_there(earlier: RunAssembler) -> str:
    """Describe a run in the way of a new one."""
    if not earlier.has_run:
        return "holds a journal without one intact line"
    run = earlier.build()
    last = "no step yet" if run.last_step is None else f"last step {run.last_step}"
    return f"holds the run {run.name!r} ({run.status.value}, {last})"


def _clear(writer: JournalWriter) -> None:
    """Remove the run in the folder, now or when the disk lets us."""
    writer.overwrite = True
    try:
        if writer.journal.is_open:
            writer.clear()
            writer.overwrite = False
            (writer.journal.path.parent / HISTORY_NAME).unlink(missing_ok=True)
    except OSError as error:
        writer.report(f"{error.filename or writer.journal.path}: {error.strerror or error}")
