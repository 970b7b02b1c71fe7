"""What is said of a run after its end: one line more in its journal, no new segment."""

from __future__ import annotations

import os
from pathlib import Path

from sightline.errors import SourceError
from sightline.journal import FOLDER
from sightline.journal.gold import judgement_as_json
from sightline.journal.opening import claim
from sightline.journal.reader import recognises
from sightline.journal.secrets import Masker
from sightline.journal.writer import JournalWriter
from sightline.runs.gold import Judgement


def add_judgement(output_dir: Path, judgement: Judgement) -> None:
    """Add a ``gold`` line to the journal of a run that nobody records any more.

    Parameters
    ----------
    output_dir : Path
        The run's folder.
    judgement : Judgement
        Secrets in it are masked.

    Raises
    ------
    RunFolderInUse
        If a living process records into the folder.
    SourceError
        If there is no run in it, or the disk refuses the line.
    """
    if not recognises(output_dir):
        raise SourceError(f"{output_dir}: holds no run")
    problems: list[str] = []
    writer = JournalWriter(output_dir.absolute() / FOLDER, problems.append)
    earlier = claim(writer, output_dir, resume=True, overwrite=False)
    if earlier is None:
        writer.release()
        raise SourceError(f"{output_dir}: {problems[0] if problems else 'holds no run any more'}")
    writer.seq = earlier.next_seq
    if writer.journal.is_open:
        writer.mend()
    writer.record("gold", judgement=Masker(os.environ).json(judgement_as_json(judgement)))
    writer.retry(at_once=True)
    writer.sync()
    writer.close()
    if problems:
        raise SourceError(f"{output_dir}: the judgement could not be written into the journal ({problems[0]})")
