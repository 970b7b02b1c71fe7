"""`sightline read`: any log or folder to its curves, phase, best step and decision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sightline.cli.options import DEFAULT_FAIL_ON, AsJson, EvalMetric, FailOn, NoColor, Width, new_app, phases_of
from sightline.errors import UsageError

app = new_app()


@app.command(epilog="Example: sightline read outputs/ --json --fail-on overfitting,diverged")
def read(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Log files, run folders, folders to search.")],
    as_json: AsJson = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on reading one growing log and tell each new point as it is written.")
    ] = False,
    fail_on: FailOn = DEFAULT_FAIL_ON,
    eval_metric: EvalMetric = None,
    no_color: NoColor = False,
    width: Width = None,
) -> int:
    """Read training runs and say what became of them.

    One run gives a page: both losses on one chart, whether the model is learning or memorising and since when,
    which checkpoint to keep. Several give a table, a line each.
    """
    if follow:
        return _follow(paths, width, as_json=as_json, fail_on=fail_on, eval_metric=eval_metric, no_color=no_color)
    from sightline.cli.reading import report

    return report(
        paths,
        as_json=as_json,
        against=phases_of(fail_on),
        eval_metric=eval_metric,
        no_color=no_color,
        width=width,
    )


def _follow(
    paths: list[Path], width: int | None, *, as_json: bool, fail_on: str, eval_metric: str | None, no_color: bool
) -> int:
    """Follow the one path there may be."""
    from sightline.cli.following import follow

    if len(paths) != 1:
        raise UsageError(f"--follow follows one log, and {len(paths)} were named")
    if width is not None:
        raise UsageError("--width does not go with --follow, whose page is as wide as the terminal")
    return follow(paths[0], as_json=as_json, against=phases_of(fail_on), eval_metric=eval_metric, no_color=no_color)
