"""What `sightline read` does once its arguments are known; imports no more than that needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no matrix is multiplied here, and starting threads takes time

from sightline.cli.exits import AGAINST, FAILED, FINE
from sightline.cli.judged import judged
from sightline.cli.output import output_glyphs, output_width, print_json, print_lines
from sightline.decisions import Verdict
from sightline.runs import Phase
from sightline.sources import ReadError

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
    runs, errors = judged(paths, eval_metric)
    documents = [each.document for each in runs]
    if as_json:
        print_json(as_document(documents, errors))
    else:
        whole = runs[0].whole(eval_metric) if len(runs) == 1 else None
        _print_page(documents, whole, errors, no_color=no_color, width=output_width(width))
    return exit_code(documents, errors, against)


def as_document(runs: Sequence[Mapping[str, Any]], errors: Sequence[ReadError]) -> dict[str, object]:
    """Return the JSON of `sightline read`."""
    return {
        "sightline": 1,
        "runs": list(runs),
        "errors": [{"path": str(error.path), "error": error.error} for error in errors],
    }


def exit_code(runs: Sequence[Mapping[str, Any]], errors: Sequence[ReadError], against: frozenset[Phase]) -> int:
    """Return 1 if any verdict speaks against its run, else 3 if anything could not be read, else 0."""
    if any(run["phase"] in against for run in runs):
        return AGAINST
    return FAILED if errors else FINE


def _print_page(
    runs: Sequence[Mapping[str, Any]], only: Verdict | None, errors: Sequence[ReadError], *, no_color: bool, width: int
) -> None:
    """Print the page of the only run or the table of several, and what could not be read."""
    from rich.text import Text

    from sightline.terminal.layout import for_terminal, wrap
    from sightline.terminal.text import printable

    glyphs = output_glyphs()
    lines: list[Text] = []
    if only is not None:
        from sightline.terminal.page import verdict_page

        lines += verdict_page(only, width=width, glyphs=glyphs)
    elif runs:
        from sightline.terminal.table import runs_table

        lines += runs_table(runs, width=width, glyphs=glyphs)
    if errors:
        lines += [Text()] if lines else []
        failed = [Text("Could not be read", style="bold")]
        for error in errors:
            failed += wrap(printable(error.error), width, first="  • ")
        lines += for_terminal(failed, glyphs)
    print_lines(lines, no_color=no_color)
