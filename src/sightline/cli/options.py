"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from sightline.errors import UsageError
from sightline.runs import Phase

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a page.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="Print no colours (NO_COLOR does the same).")]
Width = Annotated[
    int | None, typer.Option("--width", min=20, max=1000, help="Columns to use; the terminal's own unless given.")
]
EvalMetric = Annotated[
    str | None,
    typer.Option("--eval-metric", metavar="NAME", help="Curve to judge as validation loss, where a log has several."),
]
FailOn = Annotated[
    str,
    typer.Option(
        "--fail-on", metavar="PHASES", help="Phases that give exit code 1, separated by commas; none for never."
    ),
]
DEFAULT_FAIL_ON = "overfitting,diverged"


def new_app(**options: Any) -> typer.Typer:
    """Return a typer application whose help is plain text and whose errors are ours to print."""
    return typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, **options)


def phases_of(fail_on: str) -> frozenset[Phase]:
    """Return the phases that ``--fail-on`` names.

    Raises
    ------
    UsageError
        If a word is no phase.
    """
    words = [word.strip().lower() for word in fail_on.split(",") if word.strip()]
    if words == ["none"]:
        return frozenset()
    known = {phase.value: phase for phase in Phase}
    wrong = [word for word in words if word not in known]
    if wrong or not words:
        raise UsageError(f"--fail-on {fail_on}: expected phases out of {', '.join(known)}, or none")
    return frozenset(known[word] for word in words)
