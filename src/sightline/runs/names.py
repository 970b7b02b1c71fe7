"""Canonical metric names: the Trainer's own, and the table of what other producers call the same thing.

A reader of a log that is not the Trainer's passes every name through ``canonical``; of all curves of a run,
``judged_metrics`` says which two are judged as training and as validation loss. docs/metric_names.md shows both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

ALIASES: dict[str, str] = {
    "train_loss": "loss",
    "training_loss": "loss",
    "loss_train": "loss",
    "loss_training": "loss",
    "tr_loss": "loss",
    "trn_loss": "loss",
    "trainloss": "loss",
    "train_losses": "loss",
    "training_losses": "loss",
    "losses": "loss",
    "trl": "loss",
    "val_loss": "eval_loss",
    "valid_loss": "eval_loss",
    "validation_loss": "eval_loss",
    "dev_loss": "eval_loss",
    "evaluation_loss": "eval_loss",
    "loss_val": "eval_loss",
    "loss_valid": "eval_loss",
    "loss_validation": "eval_loss",
    "loss_dev": "eval_loss",
    "loss_eval": "eval_loss",
    "valloss": "eval_loss",
    "val_losses": "eval_loss",
    "valid_losses": "eval_loss",
    "validation_losses": "eval_loss",
    "eval_losses": "eval_loss",
    "dev_losses": "eval_loss",
    "tel": "eval_loss",
    "lr": "learning_rate",
    "train_lr": "learning_rate",
    "learningrate": "learning_rate",
    "train_learning_rate": "learning_rate",
    "gradnorm": "grad_norm",
    "gradient_norm": "grad_norm",
    "train_grad_norm": "grad_norm",
    "train_epoch": "epoch",
    "train_global_step": "global_step",
}
"""Alias -> canonical name. Aliases are lower case; ``/``, ``.``, ``-``, ``:`` and blanks in a name count as ``_``."""

STEP_NAMES: tuple[str, ...] = (
    "global_step",
    "train/global_step",
    "trainer/global_step",
    "step",
    "steps",
    "current_steps",
    "_step",
    "iteration",
    "iter",
    "iter_num",
    "iters",
    "global_steps",
    "global_step/max_steps",
    "num_updates",
    "update",
    "updates",
    "batch_idx",
    "batch",
)
"""Columns that count steps, the surest first."""

EPOCH_NAMES: tuple[str, ...] = ("epoch", "train/epoch", "epochs", "current_epoch", "ep")
"""Columns that count epochs."""

TIME_NAMES: tuple[str, ...] = ("_timestamp", "_runtime", "timestamp", "wall_time", "time", "created_at", "_wandb")
"""Columns that say when: never a metric."""

_TRAIN_WORDS = frozenset({"train", "training", "trn", "tr"})
_VALIDATION_WORDS = frozenset({"val", "valid", "validation", "eval", "evaluation", "dev"})
_TEST_WORDS = frozenset({"test", "testing", "heldout", "predict"})
_LOSS_WORDS = frozenset({"loss", "losses", "nll", "ce", "xent", "crossentropy", "bpb", "bpc"})
_RUNNING_WORDS = frozenset({"runtime", "second", "seconds", "time", "min", "best", "ema", "scale"})
_REWARD_NAMES = frozenset(
    {
        *("reward", "reward_std", "eval_reward", "mean_reward", "episodic_return", "ep_rew_mean", "policy_loss"),
        *("value_loss", "policy_gradient_loss"),
    }
)
_SEPARATORS = re.compile(r"[/.\-: ]+")
_WORD_ENDS = re.compile(r"[^a-z0-9]+")


@lru_cache(maxsize=4096)
def canonical(name: str) -> str:
    """Return the canonical name of a metric; an unknown one stays as it is.

    Parameters
    ----------
    name : str
        As the producer spells it.

    Returns
    -------
    str
        The Trainer's name where ALIASES knows one. A leading ``train/`` is dropped and a leading ``eval/`` becomes
        ``eval_``: this undoes what the Trainer's own TensorBoard and Weights & Biases callbacks do to its names.

    Examples
    --------
    >>> canonical("Loss/Validation"), canonical("train/grad_norm"), canonical("eval/rouge1"), canonical("val/acc")
    ('eval_loss', 'grad_norm', 'eval_rouge1', 'val/acc')
    """
    if name.startswith("train/") and name != "train/":
        return name[6:] if name != "train/lr" else "learning_rate"
    if name.startswith("eval/") and name != "eval/":
        return "eval_" + name[5:]
    return ALIASES.get(_SEPARATORS.sub("_", name.strip().lower()), name)


def is_validation(name: str) -> bool:
    """Return whether a metric is measured on rows the model does not learn from, by its name."""
    return bool(_words(name) & (_VALIDATION_WORDS | _TEST_WORDS))


def is_loss(name: str) -> bool:
    """Return whether a metric is a loss, by its name."""
    words = _words(name)
    return bool(words & _LOSS_WORDS or {word for word in words if word.endswith("loss")}) and not words & _RUNNING_WORDS


def lower_is_better(name: str) -> bool:
    """Return whether a falling metric is a good sign, by its name: losses, perplexities and error rates.

    Examples
    --------
    >>> [lower_is_better(name) for name in ("eval_loss", "eval_wer", "val/perplexity", "eval_accuracy", "reward")]
    [True, True, True, False, False]
    """
    return is_loss(name) or bool(_words(name) & {"wer", "cer", "ppl", "perplexity", "error", "rmse", "mse", "mae"})


def judged_metrics(points: Mapping[str, int]) -> tuple[str, str]:
    """Say which curve of a run is its training loss and which its validation loss.

    Parameters
    ----------
    points : mapping of str to int
        Number of points of each curve by canonical name, in the order they first appeared.

    Returns
    -------
    train_metric, eval_metric : str
        ``loss`` and ``eval_loss`` where they exist or nothing else does; else the loss whose name says training or
        validation most plainly (validation before test, a plain or total loss before a part of it), then the one with
        most points, then the first.
    """
    losses = [name for name in points if is_loss(name) and name != "train_loss"]  # that is the Trainer's final average
    evals = [name for name in losses if is_validation(name)]
    trains = [name for name in losses if not is_validation(name)]
    return _choose("loss", trains, points), _choose("eval_loss", evals, points)


def not_a_loss(names: Mapping[str, object]) -> str | None:
    """Say why the curve called ``loss`` is not one that has to fall, None if nothing speaks against it.

    Parameters
    ----------
    names : mapping with str keys
        Curves of the run by canonical name.

    Returns
    -------
    str or None
        Policy-gradient training (GRPO, PPO, RLOO) logs an objective under this name whose height means nothing. The
        losses of preference training (DPO, KTO) do have to fall.
    """
    tails = {name.rsplit("/", 1)[-1] for name in names}
    if tails & _REWARD_NAMES or any(name.startswith("objective/") for name in names):
        return "the run logs rewards: its loss is a policy-gradient objective, whose height says nothing about learning"
    return None


def _choose(usual: str, candidates: list[str], points: Mapping[str, int]) -> str:
    if usual in points or not candidates:
        return usual
    return min(candidates, key=lambda name: (_doubt(name), -points[name]))  # min() keeps the first of equals


def _doubt(name: str) -> int:
    """Rank how far a loss name is from the plain one: 0 is plain, higher is a part, a test set or a summary."""
    words = _words(name) - _TRAIN_WORDS - _VALIDATION_WORDS
    doubt = 4 * len(words & _TEST_WORDS) + 2 * ("epoch" in words)
    rest = words - _TEST_WORDS - _LOSS_WORDS - {"total", "mean", "avg", "average", "epoch", "step", "loss"}
    return doubt + (1 if rest else 0)


@lru_cache(maxsize=4096)
def _words(name: str) -> frozenset[str]:
    return frozenset(_WORD_ENDS.split(name.lower())) - {""}
