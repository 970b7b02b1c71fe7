"""What `sightline read` does once its arguments are known; imports no more than that needs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no matrix is multiplied here, and starting threads takes time

from sightline.cli.exits import AGAINST, FAILED, FINE
from sightline.cli.output import output_glyphs, output_width, print_json, print_lines
from sightline.decisions import Verdict, judge_run, verdict_as_json
from sightline.runs import Phase
from sightline.sources import ReadError, read_runs

AGAINST_A_RUN = frozenset({Phase.OVERFITTING, Phase.DIVERGED})
"""Phases that give exit code 1 unless told otherwise."""


def report(
    paths: Sequence[Path],
    *,
    as_json: bool = False,
    against: frozenset[Phase] = AGAINST_A_RUN,
    eval_metric: str | None = None,
    no_color: bool = False,
    width: int | None = None,
) -> int:
    """Read runs, judge them, print what became of them and return the exit code.

    Parameters
    ----------
    paths : sequence of Path
        Log files, run folders, and folders to search.
    as_json : bool
        Print the JSON document instead of a page.
    against : frozenset of Phase
        Phases that give exit code 1.
    eval_metric : str, optional
        Curve to judge as validation loss.
    no_color : bool
        Print no escape sequences.
    width : int, optional
        Columns to use; those of the terminal unless given.
    """
    runs, errors = read_runs(paths, eval_metric=eval_metric)
    verdicts = [judge_run(run) for run in runs]
    if as_json:
        print_json(as_document(verdicts, errors))
    else:
        _print_page(verdicts, errors, no_color=no_color, width=output_width(width))
    return exit_code(verdicts, errors, against)


def as_document(verdicts: Sequence[Verdict], errors: Sequence[ReadError]) -> dict[str, object]:
    """Return the JSON of `sightline read`."""
    return {
        "sightline": 1,
        "runs": [verdict_as_json(verdict) for verdict in verdicts],
        "errors": [{"path": str(error.path), "error": error.error} for error in errors],
    }


def exit_code(verdicts: Sequence[Verdict], errors: Sequence[ReadError], against: frozenset[Phase]) -> int:
    """Return 1 if any verdict speaks against its run, else 3 if anything could not be read, else 0."""
    if any(verdict.diagnosis.phase in against for verdict in verdicts):
        return AGAINST
    return FAILED if errors else FINE


def _print_page(verdicts: Sequence[Verdict], errors: Sequence[ReadError], *, no_color: bool, width: int) -> None:
    from rich.text import Text

    from sightline.terminal.layout import for_terminal, wrap
    from sightline.terminal.text import printable

    glyphs = output_glyphs()
    lines: list[Text] = []
    if len(verdicts) == 1:
        from sightline.terminal.page import verdict_page

        lines += verdict_page(verdicts[0], width=width, glyphs=glyphs)
    elif verdicts:
        from sightline.terminal.table import runs_table

        lines += runs_table(verdicts, width=width, glyphs=glyphs)
    if errors:
        lines += [Text()] if lines else []
        failed = [Text("Could not be read", style="bold")]
        for error in errors:
            failed += wrap(printable(error.error), width, first="  • ")
        lines += for_terminal(failed, glyphs)
    print_lines(lines, no_color=no_color)
