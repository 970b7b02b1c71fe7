"""Every stopping and overfitting rule in use today, as a function of the curves: what Sightline is measured against.

A rule sees the evaluations in order and says at which index it would stop (or first call the run overfitting),
None where it never does. No rule looks ahead. Sources are named at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
STRIP = 5  # evaluations in one of Prechelt's training strips


@dataclass(frozen=True, eq=False, slots=True)
class Curves:
    """The evaluations of one run, and the training loss as it was known at each of them."""

    steps: NDArray[np.int64]
    """Optimizer steps of the evaluations, shape (n,)."""
    eval_loss: Floats
    """Validation losses, shape (n,)."""
    train_loss: Floats
    """Training loss last logged at or before each evaluation, shape (n,); NaN where none was."""


Rule = Callable[[Curves], int | None]


def rules() -> dict[str, Rule]:
    """Return every rule by the name it has in the tables."""
    found: dict[str, Rule] = {}
    for patience in (1, 2, 3, 5, 7, 10):
        found[f"HF patience {patience}"] = lambda c, p=patience: hf_patience(c.eval_loss, p)
        found[f"Keras patience {patience}"] = lambda c, p=patience: keras_patience(c.eval_loss, p)
        found[f"Lightning patience {patience}"] = lambda c, p=patience: lightning_patience(c.eval_loss, p)
    for alpha in (1, 2, 3, 5):
        found[f"GL_{alpha}"] = lambda c, a=alpha: prechelt_gl(c.eval_loss, a)
    for alpha in (0.5, 0.75, 1.0, 2.0, 3.0):
        found[f"PQ_{alpha:g}"] = lambda c, a=alpha: prechelt_pq(c.eval_loss, c.train_loss, a)
    for s in (2, 3, 4, 6, 8):
        found[f"UP_{s}"] = lambda c, s=s: prechelt_up(c.eval_loss, s)
        found[f"rises in a row {s}"] = lambda c, s=s: rises_in_a_row(c.eval_loss, s)
    found["SageMaker overfit, instant"] = lambda c: sagemaker_overfit(c, running_mean=False)
    found["SageMaker overfit, mean"] = lambda c: sagemaker_overfit(c, running_mean=True)
    found["SageMaker overtraining"] = sagemaker_overtraining
    found["ftdoctor rule, live"] = lambda c: ftdoctor_rule(c.eval_loss, 0.0)
    found["ftdoctor rule >= 3 %, live"] = lambda c: ftdoctor_rule(c.eval_loss, 0.03)
    found["trainproof rule, live"] = trainproof_rule
    return found


def hf_patience(v: Floats, patience: int, threshold: float = 0.0) -> int | None:
    """Return where transformers' EarlyStoppingCallback stops (on_evaluate runs before the new best is taken)."""
    best, failures = None, 0
    for i, loss in enumerate(v):
        improved = best is None or (loss < best and abs(loss - best) > threshold)
        failures = 0 if improved else failures + 1
        if failures >= patience:
            return i
        if best is None or loss < best:
            best = loss
    return None


def keras_patience(v: Floats, patience: int, min_delta: float = 0.0) -> int | None:
    """Return where Keras 3's EarlyStopping stops."""
    best, wait = None, 0
    for i, loss in enumerate(v):
        wait += 1
        if best is None or loss + min_delta < best:
            best, wait = loss, 0
        elif wait >= patience and i > 0:
            return i
    return None


def lightning_patience(v: Floats, patience: int, min_delta: float = 0.0) -> int | None:
    """Return where Lightning's EarlyStopping stops; check_finite is on by default."""
    best, wait = math.inf, 0
    for i, loss in enumerate(v):
        if not math.isfinite(loss):
            return i
        if loss + min_delta < best:
            best, wait = float(loss), 0
            continue
        wait += 1
        if wait >= patience:
            return i
    return None


def prechelt_gl(v: Floats, alpha: float) -> int | None:
    """Return the first t with GL(t) = 100 (E_va(t) / E_opt(t) - 1) > alpha (Prechelt 1998)."""
    return _first(100.0 * (v / np.minimum.accumulate(v) - 1.0) > alpha)


def training_progress(t: Floats) -> Floats:
    """Return Prechelt's P_k(t) in per mille for k = STRIP; NaN before the first full strip."""
    progress = np.full(t.size, np.nan)
    for i in range(STRIP - 1, t.size):
        strip = t[i - STRIP + 1 : i + 1]
        progress[i] = 1000.0 * (strip.sum() / (STRIP * strip.min()) - 1.0)
    return progress


def prechelt_pq(v: Floats, t: Floats, alpha: float) -> int | None:
    """Return the first end of a strip with GL / P_k > alpha, or with P_k < 0.1 (Prechelt's complement)."""
    loss_above_best = 100.0 * (v / np.minimum.accumulate(v) - 1.0)
    progress = training_progress(t)
    for i in _strip_ends(v.size):
        if progress[i] < 0.1 or loss_above_best[i] > alpha * progress[i]:
            return i
    return None


def prechelt_up(v: Floats, s: int) -> int | None:
    """Return the end of the s-th successive strip that ends higher than it began (Prechelt's UP_s)."""
    risen = 0
    for i in _strip_ends(v.size):
        if i < STRIP:
            continue
        risen = risen + 1 if v[i] > v[i - STRIP] else 0
        if risen >= s:
            return i
    return None


def rises_in_a_row(v: Floats, s: int) -> int | None:
    """Return the s-th evaluation in a row that is higher than the one before it: UP_s with strips of one."""
    risen = 0
    for i in range(1, v.size):
        risen = risen + 1 if v[i] > v[i - 1] else 0
        if risen >= s:
            return i
    return None


def sagemaker_overfit(curves: Curves, *, running_mean: bool, ratio_threshold: float = 0.1) -> int | None:
    """Return where SageMaker Debugger's `overfit` fires; its text allows an instant value or a running mean."""
    v, t = curves.eval_loss, curves.train_loss
    if running_mean:
        counts = np.arange(1, v.size + 1)
        v, t = np.nancumsum(v) / counts, np.nancumsum(t) / np.maximum(np.cumsum(np.isfinite(t)), 1)
    return _first((v - t) / t > ratio_threshold)


def sagemaker_overtraining(
    curves: Curves, patience_train: int = 5, patience_validation: int = 10, delta: float = 0.01
) -> int | None:
    """Return where SageMaker Debugger's `overtraining` fires: neither loss improves by more than delta."""
    waits = [_waits(series, delta) for series in (curves.train_loss, curves.eval_loss)]
    return _first((waits[0] >= patience_train) & (waits[1] >= patience_validation))


def ftdoctor_rule(v: Floats, severity: float) -> int | None:
    """Return the first prefix that ftdoctor 0.1.0 calls overfit: the last value outside max(2 sigma, 1 %)."""
    for n in range(4, v.size + 1):
        seen = v[:n]
        differences = np.diff(seen)
        sigma = 1.4826 * np.median(np.abs(differences - np.median(differences))) / math.sqrt(2.0)
        best = float(seen.min())
        above = float(seen[-1]) - best
        if above > max(2.0 * sigma, 0.01 * abs(best)) and above >= severity * abs(best):
            return n - 1
    return None


def trainproof_rule(curves: Curves) -> int | None:
    """Return the first prefix that trainproof 0.22.0 calls TP-OVERFIT."""
    v, t = curves.eval_loss, curves.train_loss
    for n in range(4, v.size + 1):
        at = int(np.argmin(v[:n]))
        if n - at - 1 >= 3 and np.median(v[n - 3 : n]) > 1.2 * v[at] and t[n - 1] < t[at]:
            return n - 1
    return None


def packages() -> Mapping[str, Rule]:
    """Return ftdoctor and trainproof themselves, called on every prefix, where they are installed."""
    found: dict[str, Rule] = {}
    try:
        import ftdoctor.history  # noqa: F401

        found["ftdoctor (package)"] = lambda c: _first_prefix(c, _ftdoctor_says, 4)
    except ImportError:
        pass
    try:
        import trainproof.epoch  # noqa: F401

        found["trainproof (package)"] = lambda c: _first_prefix(c, _trainproof_says, 4)
    except ImportError:
        pass
    return found


def log_history(curves: Curves) -> list[dict[str, float]]:
    """Return the curves as the Trainer would have logged them."""
    entries: list[dict[str, float]] = []
    for step, v, t in zip(curves.steps.tolist(), curves.eval_loss.tolist(), curves.train_loss.tolist(), strict=True):
        if math.isfinite(t):
            entries.append({"step": step, "loss": t})
        entries.append({"step": step, "eval_loss": v})
    return entries


def _ftdoctor_says(curves: Curves) -> bool:
    from ftdoctor import diagnose
    from ftdoctor.history import from_trainer_state

    found = diagnose(from_trainer_state({"log_history": log_history(curves)})).findings
    return any(f.check.startswith("overfit") for f in found)


def _trainproof_says(curves: Curves) -> bool:
    from trainproof.epoch import check_records

    found = check_records(log_history(curves))["findings"]
    return any(f["id"] == "TP-OVERFIT" for f in found)


def _first_prefix(curves: Curves, says: Callable[[Curves], bool], fewest: int) -> int | None:
    """Return the first evaluation at which a verdict on everything so far is overfitting."""
    for n in range(fewest, curves.steps.size + 1):
        if says(Curves(curves.steps[:n], curves.eval_loss[:n], curves.train_loss[:n])):
            return n - 1
    return None


def _first(fires: NDArray[np.bool_]) -> int | None:
    """Return the first index that is true."""
    at = np.flatnonzero(fires)
    return int(at[0]) if at.size else None


def _strip_ends(n: int) -> range:
    """Return the last index of every full strip."""
    return range(STRIP - 1, n, STRIP)


def _waits(series: Floats, delta: float) -> NDArray[np.int64]:
    """Return how many evaluations ago the series last fell by more than delta below its best."""
    best, wait, waits = math.inf, 0, np.zeros(series.size, dtype=np.int64)
    for i, value in enumerate(series):
        if value < best - delta:
            best, wait = float(value), 0
        else:
            wait += 1
        waits[i] = wait
    return waits
