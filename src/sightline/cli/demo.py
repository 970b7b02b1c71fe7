"""`sightline demo`: the main job end to end, offline, in about two minutes."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.exits import FINE, INTERRUPTED, say
from sightline.cli.options import AsJson, NoColor, new_app
from sightline.cli.train import shown

if TYPE_CHECKING:
    from sightline.training.command import Outcome

INTRODUCTIONS = {
    "healthy": "1 of 2: a fine-tune that learns. Which module of the standard library does a docstring come from?",
    "overfit": "2 of 2: the same question with far too few rows and a high, constant rate. Watch it turn.",
}


app = new_app()


@app.command(epilog="Example: sightline demo --seed 1")
def demo(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Where rows and runs go.")] = Path(
        "sightline-demo"
    ),
    seed: Annotated[int, typer.Option("--seed", help="Other seeds give other numbers and the same story.")] = 0,
    as_json: AsJson = False,
    no_color: NoColor = False,
) -> int:
    """Run two small fine-tunes on a model that comes with Sightline: one learns, one memorises and is stopped.

    The one that learns is judged at its end: is it better than the base model on questions that it has never seen?
    Nothing is fetched. What an earlier demo left in the folder is replaced.
    """
    from sightline.demo import base_model_path, recipe_path, write_demo_data
    from sightline.terminal.display import choose_display
    from sightline.training.prepare import require_train_extra
    from sightline.training.threads import wait_passively

    wait_passively()
    require_train_extra("`sightline demo`")
    from sightline.training.command import train
    from sightline.training.recipe import Recipe

    files = write_demo_data(folder / "rows", seed)
    outcomes: dict[str, Outcome] = {}
    for name, rows in (("healthy", files.train), ("overfit", files.few)):
        words = {
            "model_name_or_path": base_model_path(), "dataset": rows, "eval_dataset": files.validation,
            "output_dir": folder / name, "seed": seed,
        } | ({"gold": files.gold} if name == "healthy" else {})  # fmt: skip
        given = [word for key, value in words.items() for word in (f"--{key}", str(value))]
        recipe = Recipe.load(recipe_path(name), [*given, "--overwrite"])
        if not as_json:
            say(f"\n{INTRODUCTIONS[name]}\n\n")
        with shown(choose_display(json=as_json, color=False if no_color else None)) as display:
            outcome = outcomes[name] = train(recipe, display)
            display.end(outcome.verdict, outcome.lines)
        if outcome.signal_name is not None:
            return INTERRUPTED
    if not as_json:
        _tell_story(outcomes, folder)
    return FINE


def _tell_story(outcomes: dict[str, Outcome], folder: Path) -> None:
    """Say what was seen, from the numbers of these two runs, and what the gold set answers."""
    from sightline.gold.report import judgement_paragraph

    say("\nWhat you have seen\n")
    for name, outcome in outcomes.items():
        say(f"  {name}: {_one_line(outcome)}\n")
    for name, outcome in outcomes.items():
        judgements = () if outcome.verdict is None else outcome.verdict.run.judgements
        for judgement in judgements:
            say(f"\nIs it better than the base model? On {judgement.n} questions of the gold set, {name}:\n")
            say(textwrap.indent(textwrap.fill(judgement_paragraph(judgement), 98), "  ") + "\n")
    say(f"\nLook again: sightline read {folder}      each evaluation in turn: sightline replay {folder / 'overfit'}\n")


def _one_line(outcome: Outcome) -> str:
    verdict = outcome.verdict
    if verdict is None or verdict.diagnosis.best is None:
        return "nothing can be said of it"
    run, diagnosis = verdict.run, verdict.diagnosis
    assert diagnosis.best is not None and run.eval_loss is not None
    first, last = run.eval_loss.values[0], run.eval_loss.values[-1]
    text = (
        f"validation loss {first:.2f} before, {diagnosis.best.eval_loss:.2f} at its best (step {diagnosis.best.step}), "
        f"{last:.2f} when it ended at step {run.last_step}"
    )
    if run.max_steps and run.last_step and run.last_step < run.max_steps:
        text += f" of {run.max_steps} planned"
    return f"{diagnosis.phase.value}; {text}; kept: {outcome.best_dir or 'the base model'}"
