"""Tasks of lm-evaluation-harness, where it is installed: its prompts and its scores, our paired comparison of them.

The harness scores every document; its documents are the rows here, so base and tuned are compared document by document
and not by whether two error bars overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import DataError, SightlineError, UsageError
from sightline.gold.asking import Asked, Evaluate, Watcher
from sightline.gold.choosing import choose
from sightline.gold.comparison import Contest, compare
from sightline.gold.corpus_scores import token_mean
from sightline.gold.judge import forgetting
from sightline.gold.measuring import Measured, text_rows
from sightline.gold.models import Candidate, Loaded, Models
from sightline.gold.scoring import Metric
from sightline.runs import ExampleLosses
from sightline.runs.gold import Flip, GoldExample, Judgement, Prediction, StepScore

PREFIX = "lm_eval:"
"""What a gold set is called that is a list of tasks: ``lm_eval:arc_easy,gsm8k``."""
MOST_FLIPS = 20


@dataclass(frozen=True, eq=False, slots=True)
class TaskScores:
    """What the harness gave for one task and metric."""

    values: NDArray[np.float64]
    """Score of each document, shape (n,)."""
    parts: tuple[str, ...]
    """Subtask of each document."""
    samples: tuple[Mapping[str, Any], ...]
    """The harness's own record of each document."""
    higher_is_better: bool

    @property
    def is_binary(self) -> bool:
        """Whether every document is either right or wrong."""
        return bool(np.isin(self.values, (0.0, 1.0)).all())


Scores = Mapping[str, TaskScores]
"""By ``task/metric``; of several answer filters by ``task/metric,filter``."""


@dataclass(frozen=True, slots=True)
class Tasks:
    """Which tasks, and how."""

    names: tuple[str, ...]
    folder: Path | None = None
    """Further tasks of the user's, as YAML files."""
    limit: int | None = None
    """First so many documents of each task only."""
    chat: bool = False
    """Whether prompts go through the chat template."""


def tasks_of(gold: str) -> tuple[str, ...] | None:
    """Return the tasks that a gold set's name means, None where it is a file."""
    if not gold.startswith(PREFIX):
        return None
    return tuple(name.strip() for name in gold.removeprefix(PREFIX).split(",") if name.strip())


def judge_tasks(
    tasks: Tasks,
    models: Models,
    candidates: Sequence[Candidate],
    evaluate: Evaluate,
    asked: Asked | None = None,
    *,
    watcher: Watcher | None = None,
) -> Judgement:
    """Judge tuned models against their base on tasks of lm-evaluation-harness.

    Parameters
    ----------
    tasks : Tasks
        Which ones.
    models, candidates, evaluate, asked, watcher
        As for ``judge_models``; of ``asked`` the general texts, the width and ``alpha`` count.

    Returns
    -------
    Judgement
        Metrics are called ``task/metric``. Of a group of tasks the documents are taken together, and each task is a
        group of rows.

    Raises
    ------
    SightlineError
        If lm-evaluation-harness is not installed.
    UsageError
        If it does not know a task.
    DataError
        If it cannot load the documents, or no metric gives a number for each.
    """
    asked = asked or Asked()
    base, base_general = _scored(models.base_model(), "base", tasks, asked, evaluate, watcher)
    tuned, general = [], []
    for candidate in candidates:
        scores, losses = _scored(models.tuned_model(candidate), candidate.name, tasks, asked, evaluate, watcher)
        tuned.append((candidate, scores))
        general.append((candidate, losses))
    names = [name for name in base if all(name in scores for _, scores in tuned)]
    contests = [_contest(name, base[name], scores[name], c) for c, scores in tuned for name in names]
    choice = choose(
        candidates,
        [_measured(scores[names[0]]) for _, scores in tuned],
        Metric(names[0], "", is_binary=base[names[0]].is_binary, lower_is_better=not base[names[0]].higher_is_better),
        alpha=asked.alpha,
    )
    points = [StepScore(c.step, c.name, float(s[names[0]].values.mean()), c.eval_loss) for c, s in tuned if c.step]
    chosen, scores = next((c, s) for c, s in tuned if c.name == choice.checkpoint)
    return Judgement(
        gold=PREFIX + ",".join(tasks.names),
        n=len(base[names[0]].values),
        base=models.base,
        comparisons=compare(contests, alpha=asked.alpha),
        metric_why=dict.fromkeys(names, "scored by lm-evaluation-harness"),
        forgetting=forgetting(base_general, general, alpha=asked.alpha),
        flips=_flips(names[0], base[names[0]], scores[names[0]], chosen),
        by_step=tuple(sorted(points, key=lambda point: point.step)),
        choice=choice if len(candidates) > 1 else None,
        findings=tuple(models.findings),
    )


def run_tasks(loaded: Loaded, tasks: Tasks, batch_size: int = 16) -> Scores:
    """Run the harness on a model.

    Raises
    ------
    SightlineError, UsageError, DataError
        As for ``judge_tasks``.
    """
    try:
        import lm_eval  # type: ignore[import-not-found, unused-ignore]
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found, unused-ignore]
        from lm_eval.tasks import TaskManager  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise SightlineError(f"{PREFIX}… needs lm-evaluation-harness: pip install lm-eval ({error})") from error
    manager = TaskManager(include_path=None if tasks.folder is None else str(tasks.folder))
    unknown = [name for name in tasks.names if name not in manager.all_tasks]
    if unknown or not tasks.names:
        raise UsageError(f"{PREFIX}{','.join(tasks.names)}: lm-evaluation-harness knows no task {', '.join(unknown)}")
    model = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=batch_size, max_length=loaded.context)
    try:
        results = lm_eval.simple_evaluate(
            model=model,
            tasks=list(tasks.names),
            task_manager=manager,
            limit=tasks.limit,
            apply_chat_template=tasks.chat,
            bootstrap_iters=0,
            log_samples=True,
        )
    except Exception as error:  # the harness raises whatever loading a data set raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"{PREFIX}{','.join(tasks.names)}: the harness failed: {reason}") from error
    scores = {key: value for name in tasks.names for key, value in _scores_of(name, results).items()}
    if not scores:
        raise DataError(
            f"{PREFIX}{','.join(tasks.names)}: no metric with a number for each document; nothing to compare"
        )
    return scores


def _scored(
    opened: Any, name: str, tasks: Tasks, asked: Asked, evaluate: Evaluate, watcher: Watcher | None
) -> tuple[Scores, ExampleLosses | None]:
    """Run the tasks and score the general text on one model."""
    with opened as loaded:
        if watcher is not None:
            watcher.begins(name, f"tasks ({', '.join(tasks.names)})", len(tasks.names))
        scores = run_tasks(loaded, tasks, asked.width or 16)
        rows = text_rows(asked.general_texts, loaded.tokenizer, loaded.context)
        return scores, evaluate(loaded.model, rows) if rows else None


def _scores_of(task: str, results: Mapping[str, Any]) -> dict[str, TaskScores]:
    """Return every metric of a task that has one number for each document, subtasks taken together."""
    parts = _subtasks(task, results)
    samples = [(part, sample) for part in parts for sample in results["samples"][part]]
    filters = {sample.get("filter", "none") for _, sample in samples}
    found: dict[str, TaskScores] = {}
    for answer_filter in sorted(filters):
        own = [(part, sample) for part, sample in samples if sample.get("filter", "none") == answer_filter]
        for metric in own[0][1].get("metrics", ()):
            values = [sample.get(metric) for _, sample in own]
            if not all(isinstance(value, int | float | np.number) for value in values):
                continue
            better = [results["higher_is_better"].get(part, {}).get(metric, True) for part in parts]
            name = f"{task}/{metric}" if answer_filter == "none" else f"{task}/{metric},{answer_filter}"
            found[name] = TaskScores(
                np.array(values, np.float64),
                tuple(part for part, _ in own),
                tuple(sample for _, sample in own),
                all(value is not False for value in better),
            )
    return found


def _subtasks(task: str, results: Mapping[str, Any]) -> list[str]:
    """Return the tasks with documents that a task or group of tasks is made of."""
    if task in results["samples"]:
        return [task]
    below = results.get("group_subtasks", {}).get(task, [])
    return [part for name in below for part in _subtasks(name, results)]


def _measured(scores: TaskScores) -> Measured:
    return Measured(np.stack([scores.values, np.ones_like(scores.values)], axis=1), token_mean)


def _contest(name: str, base: TaskScores, tuned: TaskScores, candidate: Candidate) -> Contest:
    return Contest(
        name,
        _measured(base).counts,
        _measured(tuned).counts,
        token_mean,
        is_binary=base.is_binary and tuned.is_binary,
        lower_is_better=not base.higher_is_better,
        checkpoint=candidate.name,
        step=candidate.step,
        groups=base.parts if len(set(base.parts)) > 1 else (),
    )


def _flips(name: str, base: TaskScores, tuned: TaskScores, candidate: Candidate) -> tuple[Flip, ...]:
    gains = tuned.values - base.values
    order = [int(i) for i in np.argsort(-np.abs(gains), kind="stable") if gains[i]]
    return tuple(
        Flip(
            _example(base.samples[i], i),
            Prediction(_text(base.samples[i].get("filtered_resps"))),
            Prediction(_text(tuned.samples[i].get("filtered_resps"))),
            float(base.values[i]),
            float(tuned.values[i]),
            candidate.name,
            name,
        )
        for i in order[:MOST_FLIPS]
    )


def _example(sample: Mapping[str, Any], index: int) -> GoldExample:
    """Return a document of the harness as a row."""
    asked = sample.get("arguments") or [[""]]
    first = next(iter(asked.values())) if isinstance(asked, Mapping) else asked[0]
    prompt = first[0] if isinstance(first, list | tuple) and first else first
    target = _text(sample.get("target"))
    return GoldExample(id=str(sample.get("doc_id", index)), prompt=_text(prompt), references=(target,), target=target)


def _text(value: Any) -> str:
    """Return what the harness recorded as text; of a list of one its only item."""
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    return value if isinstance(value, str) else str(value)
