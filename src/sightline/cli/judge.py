"""`sightline judge`: is the tuned model better than its base? On a gold set, row by row."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sightline.cli.exits import AGAINST, FINE
from sightline.cli.options import AsJson, NoColor, Width, new_app
from sightline.cli.output import output_glyphs, output_width, print_json, print_lines
from sightline.errors import MissingExtra, UsageError

if TYPE_CHECKING:
    from sightline.cli.judge_inputs import Tuned
    from sightline.gold.asking import Asked
    from sightline.gold.generation import Progress
    from sightline.gold.goldset import GoldSet
    from sightline.gold.harness import Tasks
    from sightline.runs import Finding
    from sightline.runs.gold import Judgement

REASONS = ("worse", "not-shown", "forgot")
"""What ``--fail-on`` may name."""

app = new_app()


@app.command(epilog="Example: sightline judge gold.jsonl --base models/base --tuned outputs/a --checkpoint all")
def judge(
    gold: Annotated[
        str,
        typer.Argument(metavar="GOLD", help="Prompts and right answers (JSONL, JSON, CSV, Parquet), or lm_eval:TASK,…"),
    ],
    tuned: Annotated[Path, typer.Option("--tuned", metavar="MODEL|RUN", help="Checkpoint, model or run folder.")],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="MODEL", help="Base model; else the one the tuned model names."),
    ] = None,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="WHICH", help="Of a run: best, last, all, or steps 100,200.")
    ] = "best",
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", metavar="NAME", help="Metric, or module:function; else by the data. Repeatable."),
    ] = None,
    keep_by: Annotated[
        str, typer.Option("--keep-by", metavar="loss|gold", help="gold: choose on a part of the rows, report the rest.")
    ] = "loss",
    forgetting: Annotated[
        str, typer.Option("--forgetting", metavar="FILE|none", help="General text for the forgetting check.")
    ] = "embedded",
    train: Annotated[
        list[Path] | None, typer.Option("--train", metavar="FILE", help="Training rows to look for gold prompts in.")
    ] = None,
    leave_out_seen: Annotated[
        bool, typer.Option("--leave-out-seen", help="Judge without the gold rows that stand in the training rows.")
    ] = False,
    max_new_tokens: Annotated[
        int | None,
        typer.Option("--max-new-tokens", min=1, help="Most tokens of an answer; else by the right ones."),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", metavar="TEXT", help="Text that ends an answer. Repeatable.")
    ] = None,
    chat_template: Annotated[
        Path | None, typer.Option("--chat-template", metavar="FILE", help="Jinja template for conversations.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Answers decoded together.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Judge by the first so many rows only.")] = None,
    task_path: Annotated[
        Path | None, typer.Option("--task-path", metavar="DIR", help="Folder of further lm-evaluation-harness tasks.")
    ] = None,
    backend: Annotated[
        str, typer.Option("--backend", metavar="transformers|vllm", help="What answers the prompts.")
    ] = "transformers",
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", metavar="FILE", help="Where answers go, and are found again."),
    ] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", metavar="WHAT", help="Exit code 1 on: worse, not-shown, forgot; none for never.")
    ] = "none",
    trust_remote_code: Annotated[bool, typer.Option("--trust-remote-code", help="Let code of a model run.")] = False,
    as_json: AsJson = False,
    no_color: NoColor = False,
    width: Width = None,
) -> int:
    """Say whether a tuned model is better than its base on a gold set: better, worse, or not shown.

    Both models answer the same prompts greedily; every row is compared with itself, and the answer says how sure it is.
    The loss on general text says what was forgotten. Every answer is kept: a judge that was killed goes on.
    """
    reasons = _reasons(fail_on)
    if keep_by not in ("loss", "gold"):
        raise UsageError(f"--keep-by {keep_by}: expected loss or gold")
    if backend not in ("transformers", "vllm"):
        raise UsageError(f"--backend {backend}: expected transformers or vllm")
    require_packages()
    from sightline.cli.judge_inputs import find_tuned, gold_without_leaks, template_of
    from sightline.gold.asking import Asked
    from sightline.gold.harness import Tasks, tasks_of
    from sightline.training.gold_rows import general_texts

    found = find_tuned(tuned, checkpoint)
    names = tasks_of(gold)
    gold_set = None if names is not None else gold_without_leaks(Path(gold), found, train or [], leave_out_seen, limit)

    asked = Asked(
        metrics=tuple(metric or ()),
        general_texts=general_texts(forgetting),
        max_new_tokens=max_new_tokens,
        stop=tuple(stop or ()),
        template=template_of(chat_template, found),
        keep_by_gold=keep_by == "gold",
        base_loss=found.base_loss,
        width=batch_size,
        backend="vllm" if backend == "vllm" else "transformers",
    )
    what = gold_set if gold_set is not None else Tasks(names or (), task_path, limit, chat_template is not None)
    kept = predictions or _predictions_file(Path(gold), tuned)
    judgement = _judged(what, found, base, asked, kept, trust_remote_code)
    _tell_journal(tuned, judgement)
    if as_json:
        from sightline.gold.report import judgement_as_json

        print_json(judgement_as_json(judgement))
    else:
        from sightline.terminal.judgement_page import judgement_page

        lines = judgement_page(judgement, width=output_width(width), glyphs=output_glyphs())
        print_lines(lines, no_color=no_color)
    return AGAINST if fails(judgement, reasons) else FINE


def fails(judgement: Judgement, reasons: frozenset[str]) -> bool:
    """Whether a judgement is one of those that ``--fail-on`` names."""
    from sightline.runs.gold import GoldAnswer

    words = {GoldAnswer.WORSE: "worse", GoldAnswer.NOT_SHOWN: "not-shown", GoldAnswer.BETTER: "better"}
    forgot = any(f.answer is GoldAnswer.WORSE for f in judgement.forgetting)
    return words[judgement.answer] in reasons or (forgot and "forgot" in reasons)


def require_packages() -> None:
    """Raise MissingExtra, naming the pip line, unless models can be loaded.

    Raises
    ------
    MissingExtra
        Naming the first package that is missing.
    """
    from importlib.util import find_spec

    for package in ("torch", "transformers", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtra("`sightline judge`", package, "train")


def _judged(
    what: GoldSet | Tasks, found: Tuned, base: str | None, asked: Asked, predictions: Path, trust_remote_code: bool
) -> Judgement:
    """Load the models and ask them."""
    from sightline.training.threads import wait_passively

    base = base or found.base
    if base is None:
        raise UsageError("--base is needed: the tuned model does not say which base model it was made from")
    wait_passively()
    from sightline.evaluation import evaluate
    from sightline.gold.answers import AnswerFile
    from sightline.gold.asking import judge_models
    from sightline.gold.harness import Tasks, judge_tasks
    from sightline.gold.models import Models
    from sightline.training.quiet import quiet_libraries

    quiet_libraries()
    models = Models(base, found.candidates[-1].path, trust_remote_code)
    watcher = Watcher(sys.stderr.isatty())
    try:
        if isinstance(what, Tasks):
            return judge_tasks(what, models, found.candidates, evaluate, asked, watcher=watcher)
        return judge_models(
            what, models, found.candidates, evaluate, asked, answers=AnswerFile(predictions), watcher=watcher
        )
    except KeyboardInterrupt:
        watcher.interrupted(predictions)
        raise
    finally:
        watcher.ends()


def _tell_journal(tuned: Path, judgement: Judgement) -> None:
    """Add the judgement to the journal of the run, where there is one; the answer is shown whatever becomes of it."""
    from sightline.errors import SightlineError
    from sightline.journal import add_judgement

    folder = _run_folder(tuned)
    if folder is None:
        return
    try:
        add_judgement(folder, judgement)
    except SightlineError as error:
        print(f"sightline: the journal does not have this judgement: {error}", file=sys.stderr)


class Watcher:
    """Shows how the asking goes, on one line of standard error that is written anew; silent where nobody watches."""

    def __init__(self, is_watched: bool) -> None:
        self.is_watched = is_watched
        self.model = ""
        self.what = ""
        self.told = 0.0

    def begins(self, model: str, what: str, total: int) -> None:
        """Say what is asked of which model."""
        self.model, self.what = model, what
        self._show(f"{model}: {total:,} {what}")

    def goes_on(self, progress: Progress) -> None:
        """Say how many answers are there and how long the others will take."""
        now = time.monotonic()
        if now - self.told < 0.2 and progress.done < progress.total:
            return
        self.told = now
        from sightline.terminal.text import duration

        left = "" if progress.seconds_left is None else f", {duration(progress.seconds_left)} left"
        speed = f"{progress.tokens_per_second:,.0f} tokens/s"
        self._show(f"{self.model}: {progress.done:,} of {progress.total:,} {self.what}, {speed}{left}")

    def found(self, finding: Finding) -> None:
        """Findings stand on the page; nothing to do while it runs."""

    def ends(self) -> None:
        """Clear the line."""
        self._show("")

    def interrupted(self, predictions: Path) -> None:
        """Say that nothing is lost."""
        self._show("")
        print(
            f"sightline: the answers so far are in {predictions}; the same command goes on from there", file=sys.stderr
        )

    def _show(self, line: str) -> None:
        if self.is_watched:
            sys.stderr.write(f"\r\x1b[K{line}")
            sys.stderr.flush()


def _reasons(fail_on: str) -> frozenset[str]:
    words = [word.strip().lower() for word in fail_on.split(",") if word.strip()]
    if words == ["none"]:
        return frozenset()
    if not words or any(word not in REASONS for word in words):
        raise UsageError(f"--fail-on {fail_on}: expected words out of {', '.join(REASONS)}, or none")
    return frozenset(words)


def _predictions_file(gold: Path, tuned: Path) -> Path:
    """Return where answers go: into the run's own folder, else beside nothing of anyone's."""
    folder = _run_folder(tuned)
    return Path(f"{gold.stem}.answers.jsonl") if folder is None else folder / "sightline" / "gold.jsonl"


def _run_folder(tuned: Path) -> Path | None:
    """Return the output folder of the run that a path is, or is a checkpoint of; None where Sightline recorded none."""
    return next((f for f in (tuned, tuned.parent) if (f / "sightline" / "journal.jsonl").is_file()), None)
