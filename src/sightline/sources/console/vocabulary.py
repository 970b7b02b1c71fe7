"""What the text in front of a number calls it: ``train loss``, ``val_loss``, ``Epoch [1/5]``.

A name counts only if every word of it is known, so that prose, file names and settings are passed over.
"""

from __future__ import annotations

import re

_SEGMENT = re.compile(r"[|,;\[\](){}<>\t•·►→—–\"'`]|\s-\s|\s{3,}")
_UNIT = re.compile(r"^[A-Za-z%/]{1,12}(?=[\s,|;:)\]]|$)")
_WORD = re.compile(r"[a-z]+|[0-9]+")
_TRAIN = frozenset({"train", "training", "tr", "trn", "trl"})
_VALIDATION = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev", "tel"})
_TEST = frozenset({"test", "testing"})
_LOSS = frozenset({"loss", "losses", "nll", "xent", "trl", "tel", "bpb", "crossentropyloss"})
_FILLING = frozenset(
    {
        *("avg", "average", "averaged", "mean", "total", "current", "running", "smooth", "smoothed", "value", "epoch"),
        *("step", "iter", "batch", "per", "token", "lm", "mlm", "clm", "ce", "cross", "entropy", "the", "on", "set"),
        *("is", "of", "at", "masked", "model", "global", "sft", "dpo", "log", "likelihood", "negative", "data"),
        "reduced",
    }
)
_STEP = frozenset({"step", "steps", "iter", "iters", "iteration", "iterations", "it", "update", "updates", "s"})
_STEP_BEFORE = frozenset({"global", "training", "train", "optimizer", "optimization", "current", "at", "completed"})
_EPOCH = frozenset({"epoch", "ep", "epochs"})
_OTHERS = {
    "lr": "learning_rate",
    "learning rate": "learning_rate",
    "grad norm": "grad_norm",
    "gradient norm": "grad_norm",
    "gnorm": "grad_norm",
    "norm": "grad_norm",
}
_ACCURACY = frozenset({"acc", "accuracy"})
_VALIDATION_LINE = re.compile(r"(?<![a-z_])(?:val|valid|validation|validating|eval|evaluation|dev)(?![a-z])")
_TRAIN_LINE = re.compile(r"(?<![a-z_])train(?:ing)?(?![a-z])")
_COUNTED = re.compile(
    r"\b(epoch|ep|step|iter|iteration)s?(?:\s?\([a-z]{1,10}\))?\s{0,4}(?:\[\s{0,8}|\]\[\s{0,8})$", re.IGNORECASE
)
"""A count in brackets behind its name: ``Epoch [1/5]``, ``Iter(train) [  10/9840]``."""
SECOND_COUNT = re.compile(r"^\]\s?\[\s{0,8}$")
"""Between the epoch and the step in ``Epoch(train)  [1][  50/100]``."""
STEP, EPOCH = "_step", "_epoch"
"""What a number counts, among the metrics' names."""
STEPS_PLANNED, EPOCHS_PLANNED = "_steps", "_epochs"
"""What such a count goes up to: the 5000 of ``step:10/5000``."""


def label_of(between: str, *, adjacent: bool) -> str:
    """Return the name in front of a number: the last piece of the text, without the unit of the number before."""
    if (counted := _COUNTED.search(between)) is not None:
        return counted[1].lower()
    if adjacent:
        between = _UNIT.sub("", between, count=1)
    return _SEGMENT.split(between.rstrip())[-1].strip(" :=#*@~\t").lower()


def name_of(label: str, line: str) -> str | None:
    """Return what a label names, None if it is nothing known."""
    words = _WORD.findall(label.replace("_", " "))
    if not words or len(words) > 8:
        return None
    known = set(words)
    if known & _EPOCH and len(words) == 1:
        return EPOCH
    if (
        words[-1] in _STEP
        and known - {words[-1]} <= _STEP_BEFORE
        and (words[-1] != "s" or "el:" in line or "trl:" in line)
    ):
        return STEP
    if known & _LOSS and known <= _LOSS | _TRAIN | _VALIDATION | _TEST | _FILLING:
        return _loss(known, line)
    if len(words) == 1 and "loss" in line and known & (_TRAIN | _VALIDATION):  # "loss train: 1.2, val: 1.3"
        return _loss(known, line)
    if (joined := " ".join(words)) in _OTHERS:
        return _OTHERS[joined]
    if known & _ACCURACY and known <= _ACCURACY | _TRAIN | _VALIDATION | _TEST | _FILLING:
        return _role(known, line, "accuracy")
    return None


def _loss(words: set[str], line: str) -> str:
    return _role(words, line, "bpb" if "bpb" in words else "loss")


def _role(words: set[str], line: str, metric: str) -> str:
    """Return the metric with the rows it is measured on, from its own words or from the rest of the line."""
    if words & _TEST:
        return f"test_{metric}"
    if words & _VALIDATION:
        return f"eval_{metric}"
    if words & _TRAIN:
        return metric
    validates = _VALIDATION_LINE.search(line) and not _TRAIN_LINE.search(line)
    return f"eval_{metric}" if validates and f"val_{metric}" not in line else metric
