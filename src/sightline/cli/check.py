"""`sightline check`: what would go wrong, before the first step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sightline.cli.exits import AGAINST, FINE
from sightline.cli.options import AsJson, NoColor, new_app
from sightline.cli.output import output_glyphs, output_width, print_json, print_lines
from sightline.cli.train import RECIPE_OPTIONS, recipe_words

if TYPE_CHECKING:
    from sightline.runs import Finding
    from sightline.training.prepare import Prepared

app = new_app()


@app.command(context_settings=RECIPE_OPTIONS, epilog="Example: sightline check recipe.yaml --max_length 512")
def check(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Recipe in flat YAML.")] = None,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> int:
    """Look at data, tokenizer, labels, leaks, memory, disk and settings before a fine-tune; nothing is trained.

    Exit code 1 when something is found that would waste the run.
    """
    from sightline.runs import Severity
    from sightline.training.prepare import prepare, require_train_extra
    from sightline.training.recipe import Recipe

    config, words = recipe_words(config, context.args)
    require_train_extra("`sightline check`")
    recipe = Recipe.load(config, words)
    from sightline.training.examine import examine
    from sightline.training.quiet import quiet_libraries

    quiet_libraries()
    prepared = prepare(recipe)
    findings = examine(prepared)
    if as_json:
        print_json(_document(config, prepared, findings))
    else:
        _print_page(prepared, findings, no_color=no_color)
    return AGAINST if any(finding.severity is Severity.CRITICAL for finding in findings) else FINE


def _document(config: Path | None, prepared: Prepared, findings: tuple[Finding, ...]) -> dict[str, Any]:
    """Return the JSON of a check."""
    cadence, eval_rows = prepared.cadence, prepared.eval_rows
    return {
        "sightline": 1,
        "path": None if config is None else str(config),
        "rows": {
            "train": len(prepared.train_rows),
            "eval": 0 if eval_rows is None else len(eval_rows),
            "gold": len(prepared.gold_rows),
        },
        "steps": {
            "total": cadence.total_steps,
            "per_epoch": cadence.steps_per_epoch,
            "eval": cadence.eval_steps,
            "logging": cadence.logging_steps,
        },
        "notes": list(prepared.notes),
        "findings": [
            {
                "kind": finding.kind,
                "severity": finding.severity.value,
                "message": finding.message,
                "evidence": dict(finding.evidence),
            }
            for finding in findings
        ],
    }


def _print_page(prepared: Prepared, findings: tuple[Finding, ...], *, no_color: bool) -> None:
    """Print what was looked at and what was found, the worst first."""
    from rich.text import Text

    from sightline.runs import Severity
    from sightline.terminal.layout import for_terminal, wrap
    from sightline.terminal.text import printable
    from sightline.terminal.words import SEVERITY_WORDS

    width, cadence, eval_rows = output_width(None), prepared.cadence, prepared.eval_rows
    evaluated = "never evaluated" if cadence.eval_steps is None else f"evaluated every {cadence.eval_steps} steps"
    lines = wrap(
        f"{len(prepared.train_rows):,} training rows, {0 if eval_rows is None else len(eval_rows):,} validation rows; "
        f"{cadence.total_steps:,} steps, {cadence.steps_per_epoch:,} an epoch, {evaluated}",
        width,
    )
    for note in prepared.notes:
        lines += wrap(printable(note), width, first="  ")
    for finding in findings:
        word, style = SEVERITY_WORDS[finding.severity]
        lines += [Text(), Text(word, style=style), *wrap(printable(finding.message), width, first="  ")]
    critical = sum(finding.severity is Severity.CRITICAL for finding in findings)
    last = "Nothing was found: nothing speaks against training."
    if critical:
        last = f"{critical} of these would waste the run: mend them, or train all the same with --force."
    elif findings:
        last = "None of this stops the training."
    print_lines(for_terminal([*lines, Text(), *wrap(last, width)], output_glyphs()), no_color=no_color)
