"""What `sightline judge` works on: the gold set's rows, a run's tuned models, their base and training rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sightline.errors import CheckpointError, DataError, SourceError, UsageError
from sightline.gold.goldset import GoldSet
from sightline.gold.models import Candidate, adapter_base
from sightline.gold.overlap import find_overlap, overlap_finding
from sightline.gold.tokens import Template
from sightline.runs import Finding, Run, Severity
from sightline.training.gold_rows import load_gold, template_named

WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "adapter_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.bin",
)
MOST_TRAINING_ROWS = 1_000_000


@dataclass(frozen=True, eq=False, slots=True)
class Tuned:
    """The tuned models to judge, and what their run tells."""

    candidates: tuple[Candidate, ...]
    base: str | None
    """The base model they name."""
    run: Run | None
    """The run they come from, None where only a model folder is at hand."""

    @property
    def base_loss(self) -> float | None:
        """The base model's validation loss, as the run scored it before its first step."""
        return None if self.run is None or self.run.eval_loss is None else self.run.eval_loss.at(0)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe in the run's journal, empty where there is none."""
        recipe = {} if self.run is None else self.run.config.get("recipe")
        return recipe if isinstance(recipe, Mapping) else {}


def find_tuned(path: Path, which: str) -> Tuned:
    """Find the tuned models that a path and ``--checkpoint`` mean.

    Parameters
    ----------
    path : Path
        A model or adapter folder, a checkpoint, a run's output folder, or the id of a model on the hub.
    which : str
        ``best``, ``last``, ``all``, or steps separated by commas; of a run with several checkpoints.

    Raises
    ------
    CheckpointError
        If there are no weights, or a checkpoint asked for is not there.
    UsageError
        If ``which`` makes no sense.
    """
    from sightline.checkpoints import find_checkpoints

    if not path.exists():
        if len(path.parts) <= 2 and not path.is_absolute() and not str(path).startswith("."):
            return Tuned((Candidate(path, str(path)),), None, None)  # it may be a model of the hub
        raise CheckpointError(f"{path}: no such folder; --tuned takes a checkpoint, a model folder or a run's folder")
    run = _run_of(path)
    found = [parts for parts in find_checkpoints(path) if not _no_weights(parts.path)]
    if found:
        candidates = tuple(_candidate(parts.path, parts.step, run) for parts in found)
        chosen = _chosen(candidates, which, run, path)
    elif _no_weights(path):
        raise CheckpointError(
            f"{path}: no weights in it ({WEIGHTS[0]} or {WEIGHTS[2]}) and no checkpoint-N folder; "
            "--tuned takes a checkpoint, a model folder or a run's output folder"
        )
    else:
        if which not in ("best", "last", "all"):
            raise UsageError(f"--checkpoint {which}: {path} is one model, not a run with several checkpoints")
        chosen = (_candidate(path, None, run),)
    base = _base_of(chosen, run)
    return Tuned(chosen, base, run)


def gold_without_leaks(
    path: Path, tuned: Tuned, training: Sequence[Path], leave_out_seen: bool, limit: int | None
) -> GoldSet:
    """Read a gold set and look for its prompts in the training rows.

    Parameters
    ----------
    path : Path
        The gold set.
    tuned : Tuned
        Whose run names its training rows.
    training : sequence of Path
        Training rows, where they are named by hand.
    leave_out_seen : bool
        Leave out the rows that the model was trained on, and do not only count them.
    limit : int or None
        Keep the first so many rows.

    Raises
    ------
    DataError
        If a file cannot be read, or no row is left.
    """
    gold = load_gold(path)
    seen, findings = _training_overlap(gold, tuned, training)
    kept = tuple(e for e in gold.examples if not (leave_out_seen and e.id in seen))
    if not kept:
        raise DataError(f"{gold.name}: all {len(gold)} prompts stand in the training data; none is left to judge by")
    findings = [] if leave_out_seen else findings
    return replace(gold, examples=kept[:limit], findings=(*gold.findings, *findings))


def template_of(path: Path | None, tuned: Tuned) -> Template:
    """Return the chat template in a file, else the one that the run was trained with.

    Raises
    ------
    UsageError
        If the file cannot be read.
    """
    if path is not None:
        try:
            return Template(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--chat-template {path}: cannot be read ({error})") from None
    return template_named(tuned.recipe.get("chat_template"))


def _training_overlap(
    gold: GoldSet, tuned: Tuned, training: Sequence[Path]
) -> tuple[frozenset[str], Sequence[Finding]]:
    """Return the ids of gold rows that stand in the training rows, and what to say of it."""
    try:
        texts = _training_prompts(tuned, training)
    except DataError as error:
        if training:
            raise
        message = f"the training rows are not at hand ({error}): nobody looked for gold prompts in them; --train FILE"
        return frozenset(), [Finding("gold_overlap_unknown", Severity.INFO, message)]
    if texts is None:
        return frozenset(), []
    overlap = find_overlap(gold.examples, texts)
    finding = overlap_finding(overlap, len(gold))
    return overlap.ids, [] if finding is None else [finding]


def _run_of(path: Path) -> Run | None:
    """Return the run a folder belongs to, None where there is no log."""
    from sightline.sources import read

    within_run = path.name == "best" or path.name.startswith("checkpoint-")
    for folder in (path, path.parent) if within_run else (path,):
        states = (folder / "trainer_state.json", *folder.glob("checkpoint-*/trainer_state.json"))
        if (folder / "sightline" / "journal.jsonl").is_file() or any(state.is_file() for state in states):
            try:
                return read(folder)
            except SourceError:
                return None
    return None


def _candidate(folder: Path, step: int | None, run: Run | None) -> Candidate:
    """Return a model folder with the step and the validation loss that its run knows."""
    if step is None and folder.name.startswith("checkpoint-") and folder.name[11:].isdigit():
        step = int(folder.name[11:])
    if step is None and folder.name == "best" and run is not None:
        step = _kept_step(run)
    loss = None if run is None or run.eval_loss is None or step is None else run.eval_loss.at(step)
    return Candidate(folder, folder.name, step, loss)


def _chosen(candidates: tuple[Candidate, ...], which: str, run: Run | None, path: Path) -> tuple[Candidate, ...]:
    """Return the checkpoints asked for."""
    by_step = {c.step: c for c in candidates}
    if which == "all":
        return candidates
    if which == "last":
        return candidates[-1:]
    if which == "best":
        step = None if run is None else _kept_step(run)
        if step in by_step:
            return (by_step[step],)
        if not _no_weights(path / "best"):
            return (_candidate(path / "best", step, run),)
        if step is None:
            return candidates[-1:]
        nearest = ", ".join(str(s) for s in by_step)
        raise CheckpointError(
            f"{path}: the best step {step} was not kept; there are checkpoints at {nearest}: "
            "choose with --checkpoint N, last or all"
        )
    words = [word.strip().removeprefix("checkpoint-") for word in which.split(",") if word.strip()]
    if not words or not all(word.isdigit() for word in words):
        raise UsageError(f"--checkpoint {which}: expected best, last, all, or steps such as 100,200")
    missing = [word for word in words if int(word) not in by_step]
    if missing:
        there = ", ".join(str(s) for s in by_step)
        raise CheckpointError(f"{path}: no checkpoint-{missing[0]} with weights in it (there are: {there})")
    return tuple(by_step[int(word)] for word in dict.fromkeys(words))


def _kept_step(run: Run) -> int | None:
    """Return the step whose checkpoint Sightline would keep."""
    from sightline.decisions import judge_run

    return judge_run(run).decision.keep_step


def _base_of(candidates: Sequence[Candidate], run: Run | None) -> str | None:
    """Return the base model that adapters name, or the recipe of the run."""
    named = [adapter_base(c.path) for c in candidates if c.is_adapter]
    recipe = {} if run is None else run.config.get("recipe")
    from_recipe = recipe.get("model_name_or_path") if isinstance(recipe, Mapping) else None
    return next((name for name in (*named, from_recipe) if isinstance(name, str) and name), None)


def _training_prompts(tuned: Tuned, training: Sequence[Path]) -> Iterable[str] | None:
    """Return the training prompts of a run, None where nothing tells what it was trained on."""
    from sightline.training.rows import Columns, load_examples

    recipe = tuned.recipe
    sources = [str(path) for path in training] or recipe.get("dataset")
    if not sources:
        return None
    sources = [sources] if isinstance(sources, str) else [str(source) for source in sources]
    if not training and not all(Path(source).exists() for source in sources):
        raise DataError(f"{', '.join(sources)}: no such file")
    columns = Columns(
        prompt=recipe.get("prompt_column"),
        completion=recipe.get("completion_column"),
        text=recipe.get("text_column"),
        messages=recipe.get("messages_column"),
    )
    examples = load_examples(sources, columns if not training else Columns(), limit=MOST_TRAINING_ROWS)
    return (example.prompt_text for example in examples)


def _no_weights(folder: Path) -> bool:
    return not any((folder / name).is_file() for name in WEIGHTS)
