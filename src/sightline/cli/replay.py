"""`sightline replay`: what would have been said at every evaluation, with no look ahead."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # no matrix is multiplied here, and starting threads takes time

from sightline.cli.exits import FINE
from sightline.cli.options import AsJson, EvalMetric, NoColor, Width, new_app
from sightline.cli.output import output_glyphs, output_width, print_json, print_lines

if TYPE_CHECKING:
    from sightline.runs import Run

app = new_app()


@app.command(epilog="Example: sightline replay outputs/a/trainer_state.json")
def replay(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A log file or a run folder.")],
    as_json: AsJson = False,
    eval_metric: EvalMetric = None,
    no_color: NoColor = False,
    width: Width = None,
) -> int:
    """Show what would have been said and done at every evaluation of a run, in order, with no look ahead."""
    from sightline.sources import read
    from sightline.terminal.replay_table import replay_table

    document = as_document(read(path, eval_metric=eval_metric))
    if as_json:
        print_json(document)
    else:
        print_lines(replay_table(document, width=output_width(width), glyphs=output_glyphs()), no_color=no_color)
    return FINE


def as_document(run: Run) -> dict[str, Any]:
    """Return the JSON of `sightline replay`."""
    from sightline.decisions import replay as replay_run
    from sightline.decisions import replay_as_json

    return replay_as_json(replay_run(run))
