"""`sightline train`: a fine-tune under watch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.exits import AGAINST, FINE
from sightline.cli.options import AsJson, FailOn, NoColor, new_app, phases_of

if TYPE_CHECKING:
    from sightline.training.display import Display

RECIPE_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Every key of a recipe may be given as an option, so a command takes options it does not know."""
FAIL_ON = "diverged"
"""A run that turned was stopped and its best checkpoint kept: the job is done, unless the caller says otherwise."""

app = new_app()


@app.command(
    context_settings=RECIPE_OPTIONS,
    epilog="Example: sightline train recipe.yaml --learning_rate 1e-4 --output_dir outputs/b",
)
def train(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG.yaml]", help="Recipe in flat YAML; any key can be given as --key value."),
    ] = None,
    as_json: AsJson = False,
    fail_on: FailOn = FAIL_ON,
    no_color: NoColor = False,
) -> int:
    """Fine-tune a model under watch: it is stopped at the right step and the best checkpoint is kept.

    The recipe's keys are those of TrainingArguments, plus model_name_or_path, dataset, eval_dataset or eval_size,
    use_peft, lora_r, evals_per_epoch, gold. With --json every event is one JSON object a line.
    """
    phases = phases_of(fail_on)
    path, words = recipe_words(config, context.args)
    from sightline.training.threads import wait_passively

    wait_passively()
    from sightline.training.prepare import require_train_extra

    require_train_extra()
    from sightline.training.recipe import Recipe

    recipe = Recipe.load(path, words)
    from sightline.terminal.display import choose_display
    from sightline.training.command import is_first_process
    from sightline.training.command import train as fine_tune
    from sightline.training.display import Silent

    one = choose_display(json=as_json, color=False if no_color else None) if is_first_process() else Silent()
    with shown(one) as display:
        outcome = fine_tune(recipe, display)
        display.end(outcome.verdict, outcome.lines)
    if outcome.signal_name is not None:
        return 128 + signal.Signals[outcome.signal_name]
    against = outcome.verdict is not None and outcome.verdict.diagnosis.phase in phases
    return AGAINST if against else FINE


def recipe_words(config: Path | None, more: list[str]) -> tuple[Path | None, list[str]]:
    """Tell the recipe's path from options that stand in its place when there is none."""
    if config is not None and str(config).startswith("--"):
        return None, [str(config), *more]
    return config, list(more)


@contextmanager
def shown(display: Display) -> Iterator[Display]:
    """Give the terminal back as it was, whatever happens."""
    try:
        yield display
    finally:
        close = getattr(display, "close", None)
        if close is not None:
            close()
