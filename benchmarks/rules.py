"""Every stopping and overfitting rule in use today, as a function of the curves: what Sightline is measured against.

A rule sees the evaluations in order and says at which index it would stop (or first call the run overfitting),
None where it never does. No rule looks ahead. Sources are named at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import TypeVar

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
    train_log: tuple[tuple[int, float], ...] | None = None
    """Every step and training loss in the log, for what reads a whole log; None where there are no others."""


Rule = Callable[[Curves], int | None]
T = TypeVar("T")


def rules() -> dict[str, Rule]:
    """Return every rule by the name it has in the tables."""
    found: dict[str, Rule] = {}
    for patience in range(1, 11):
        found[f"HF patience {patience}"] = lambda c, p=patience: hf_patience(c.eval_loss, p)
        found[f"Keras patience {patience}"] = lambda c, p=patience: keras_patience(c.eval_loss, p)
        found[f"Lightning patience {patience}"] = lambda c, p=patience: lightning_patience(c.eval_loss, p)
    for alpha in (1, 2, 3, 5):
        found[f"GL_{alpha}"] = lambda c, a=alpha: prechelt_gl(c.eval_loss, a)
    for alpha in (0.5, 0.75, 1.0, 2.0, 3.0):
        found[f"PQ_{alpha:g}"] = lambda c, a=alpha: prechelt_pq(c.eval_loss, c.train_loss, a)
    found["Prechelt P_k below 0.1"] = lambda c: prechelt_no_progress(c.train_loss)
    for s in (2, 3, 4, 6, 8):
        found[f"UP_{s}"] = lambda c, s=s: prechelt_up(c.eval_loss, s)
        found[f"rises in a row {s}"] = lambda c, s=s: rises_in_a_row(c.eval_loss, s)
    found["SageMaker overfit, instant"] = lambda c: sagemaker_overfit(c, running_mean=False)
    found["SageMaker overfit, mean"] = lambda c: sagemaker_overfit(c, running_mean=True)
    found["SageMaker overtraining"] = sagemaker_overtraining
    found["SageMaker loss not decreasing"] = lambda c: sagemaker_not_decreasing(c.train_loss)
    found["ftdoctor rule, live"] = lambda c: ftdoctor_rule(c.eval_loss, 0.0)
    found["ftdoctor rule >= 3 %, live"] = lambda c: ftdoctor_rule(c.eval_loss, 0.03)
    found["ftdoctor rule >= 10 %, live"] = lambda c: ftdoctor_rule(c.eval_loss, 0.10)
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
    return _first(generalization_loss(v) > alpha)


def generalization_loss(v: Floats) -> Floats:
    """Return Prechelt's GL(t) in percent."""
    return np.asarray(100.0 * (v / np.minimum.accumulate(v) - 1.0))


def training_progress(t: Floats) -> Floats:
    """Return Prechelt's P_k(t) in per mille for k = STRIP; NaN before the first full strip, and of losses of zero."""
    progress = np.full(t.size, np.nan)
    for i in range(STRIP - 1, t.size):
        strip = t[i - STRIP + 1 : i + 1]
        if strip.min() > 0.0:
            progress[i] = 1000.0 * (strip.sum() / (STRIP * strip.min()) - 1.0)
    return progress


def prechelt_pq(v: Floats, t: Floats, alpha: float) -> int | None:
    """Return the first end of a strip with GL / P_k > alpha."""
    above, progress = generalization_loss(v), training_progress(t)
    return next((i for i in _strip_ends(v.size) if above[i] > alpha * progress[i]), None)


def prechelt_no_progress(t: Floats, least: float = 0.1) -> int | None:
    """Return the first end of a strip with P_k below 0.1 per mille.

    Prechelt ends every training there, whatever the criterion. It is a row of its own here, and left out of the others:
    on real logs it costs them most of what they keep.
    """
    progress = training_progress(t)
    return next((i for i in _strip_ends(t.size) if progress[i] < least), None)


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
    return _first(v - t > ratio_threshold * t)


def sagemaker_overtraining(
    curves: Curves, patience_train: int = 5, patience_validation: int = 10, delta: float = 0.01
) -> int | None:
    """Return where SageMaker Debugger's `overtraining` fires: neither loss improves by more than delta."""
    waits = [_waits(series, delta) for series in (curves.train_loss, curves.eval_loss)]
    return _first((waits[0] >= patience_train) & (waits[1] >= patience_validation))


def sagemaker_not_decreasing(
    t: Floats, num_steps: int = 10, diff_percent: float = 0.1, increase_percent: float = 5.0
) -> int | None:
    """Return where SageMaker Debugger's `loss_not_decreasing` fires on the training loss, looked at every num_steps."""
    for i in range(num_steps, t.size, num_steps):
        change = t[i] - t[i - num_steps]
        if change > -diff_percent / 100.0 * t[i - num_steps] or change > increase_percent / 100.0 * t[i - num_steps]:
            return i
    return None


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
    """Return ftdoctor and trainproof themselves, reading the log so far at every evaluation, where they are installed.

    Their functions are called in this process: a command started 9,000 times would cost an hour.
    """
    found: dict[str, Rule] = {}
    if find_spec("ftdoctor"):
        found["ftdoctor (package)"] = lambda c: _first(np.array(_ftdoctor_severities(c)) > 0)
        found["ftdoctor (package), warning"] = lambda c: _first(np.array(_ftdoctor_severities(c)) > 1)
    if find_spec("trainproof"):
        found["trainproof (package)"] = lambda c: next(
            (i for i, log in enumerate(_logs_so_far(c)) if _trainproof_finds(log)), None
        )
    return found


def missing_packages() -> list[str]:
    """Return the packages that are measured as they are and not installed here."""
    return [name for name in ("ftdoctor", "trainproof") if not find_spec(name)]


def merged(results: Mapping[str, T]) -> dict[str, T]:
    """Put a patience of Trainer, Keras and Lightning into one row where all three gave the same."""
    rows: dict[str, T] = {}
    for name, result in results.items():
        alike = [f"{library} patience {name.rpartition(' ')[2]}" for library in ("HF", "Keras", "Lightning")]
        if name not in alike or any(results.get(other) != result for other in alike):
            rows[name] = result
        elif name == alike[0]:
            rows[name.replace("HF", "HF, Keras, Lightning")] = result
    return rows


def log_history(curves: Curves) -> list[dict[str, float]]:
    """Return the curves as the Trainer would have logged them."""
    train = curves.train_log
    if train is None:
        train = tuple(zip(curves.steps.tolist(), curves.train_loss.tolist(), strict=True))
    entries = [{"step": step, "loss": loss} for step, loss in train if math.isfinite(loss)]
    evaluations = zip(curves.steps.tolist(), curves.eval_loss.tolist(), strict=True)
    entries += [{"step": step, "eval_loss": loss} for step, loss in evaluations]
    return sorted(entries, key=lambda entry: entry["step"])  # stable: a training loss before the evaluation at its step


def _logs_so_far(curves: Curves) -> Iterator[list[dict[str, float]]]:
    """Yield the log as it stands at every evaluation."""
    log = log_history(curves)
    return (log[: i + 1] for i, entry in enumerate(log) if "eval_loss" in entry)


@lru_cache(maxsize=128)
def _ftdoctor_severities(curves: Curves) -> tuple[int, ...]:
    """Return at every evaluation how severe ftdoctor's overfitting finding is: 0 none, 1 worth a line, 2 a warning."""
    from ftdoctor import diagnose
    from ftdoctor.history import from_trainer_state

    severities: list[int] = []
    for log in _logs_so_far(curves):
        found = diagnose(from_trainer_state({"log_history": log})).findings
        severities.append(max((int(f.severity) for f in found if f.check == "overfitting"), default=0))
        if severities[-1] > 1:
            break
    return tuple(severities)


def _trainproof_finds(log: list[dict[str, float]]) -> bool:
    from trainproof.epoch import check_records

    return any(f["id"] == "TP-OVERFIT" for f in check_records(log)["findings"])


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
