"""Every kind of finding: a run that has it, and a near twin that has not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sightline.runs import Checkpoint, Curve, Run, Segment
from tests.diagnosis.courses import falling, learnt, live, noisy, run_of, turning, with_rows

N = 24
LINES = 4 * N
EVALS = noisy(falling(N), 0.004, 1)
TRAIN = noisy(learnt(LINES), 0.02, 2)
NAN = float("nan")


def changed(values: np.ndarray, at: slice | int | list[int], to: float | np.ndarray) -> np.ndarray:
    """Return the values with some replaced."""
    new = np.array(values, dtype=float)
    new[at] = to
    return new


def with_curve(name: str, values: np.ndarray, loss: np.ndarray = TRAIN, **fields: object) -> Run:
    """Return a usual run with one more curve of log lines."""
    every = 20 * N // LINES
    return run_of(EVALS, loss, curves={name: Curve.of(every * np.arange(1, len(values) + 1), values)}, **fields)


def rates(shape: np.ndarray, **fields: object) -> Run:
    """Return a usual run with these learning rates."""
    return with_curve("learning_rate", shape, **fields)


def saved(steps: list[int], deleted: list[int] = []) -> Run:  # noqa: B006
    """Return a usual run with checkpoints at these steps."""
    checkpoints = tuple(Checkpoint(s, Path(f"checkpoint-{s}"), deleted=s in deleted) for s in steps)
    return run_of(changed(EVALS, 12, 1.2), TRAIN, checkpoints=checkpoints)


def zeros_after(level: float) -> Run:
    """Return a usual run whose training loss is exactly 0 after the last evaluation."""
    loss = Curve.of(5 * STEPS, changed(level * TRAIN / TRAIN[59], slice(60, None), 0.0))
    return run_of(EVALS[:15], curves={"loss": loss})


def after_a_gap(spacings: int) -> Run:
    """Return a run of which eight evaluations are followed by one that is so many of their spacings away."""
    steps = np.append(20 * np.arange(1, 9), 160 + 20 * spacings)
    losses = np.array([2.0, 1.6, 1.5, 1.45, 1.43, 1.425, 1.421, 1.42, 1.425])
    loss = Curve.of(10 * np.arange(1, 120), 2.0 * np.exp(-np.arange(1, 120) / 12.0))
    return run_of([], curves={"eval_loss": Curve.of(steps, losses), "loss": loss})


USUAL = run_of(EVALS, TRAIN)
STEPS = np.arange(1, LINES + 1)
WARM = np.minimum(STEPS / 10, 1.0) * 1e-4
STAIRS = noisy(2.0 * 0.8 ** np.floor((STEPS - 1) / 24), 0.02, 3)
ENDS = 20 * np.arange(1, N + 1)
EPOCHS = Curve.of(5 * STEPS, STEPS / 24)
NEVER_FELL = np.array([2.0, 3.1, 2.4, 3.6, 2.2, 3.3, 2.9, 2.3, 3.4, 2.8])
UNEVEN = np.array([1.0, 1.3, 1.4, 1.35, 1.42])

# kind: (a run that has it, a near twin that has not)
CASES: dict[str, tuple[Run, Run]] = {
    "overfitting": (run_of(noisy(turning(40), 0.005), learnt(160)), run_of(noisy(falling(40), 0.005), learnt(160))),
    "rise_suspected": (
        live(run_of(noisy(turning(40, 0.06), 0.01, 3)[:28], learnt(112))),
        live(run_of(noisy(falling(40), 0.01, 3)[:28], learnt(112))),
    ),
    "no_evaluations": (run_of([], TRAIN), USUAL),
    "too_few_evaluations": (run_of(EVALS[:3], TRAIN), run_of(EVALS[:4], TRAIN)),
    "not_a_loss": (run_of(EVALS - 2.0, TRAIN), USUAL),
    "non_finite_loss": (run_of(EVALS, changed(TRAIN, slice(60, None), NAN)), USUAL),
    "non_finite_eval_loss": (run_of(changed(EVALS, 5, NAN), TRAIN), USUAL),
    "evaluation_lost": (
        run_of(changed(EVALS, [22, 23], NAN), TRAIN),
        run_of(changed(EVALS, [10, 11], NAN), TRAIN),
    ),
    "evaluation_gap": (after_a_gap(60), after_a_gap(2)),
    "solved_or_leaked": (
        run_of(2.0 * np.exp(-0.4 * np.arange(1, N + 1)), TRAIN),
        run_of(1e-4 * EVALS, 1e-4 * TRAIN),  # a loss of another unit
    ),
    "evaluation_repeated": (
        run_of(EVALS, TRAIN, curves={"eval_loss": Curve.of(np.append(ENDS, 100), np.append(EVALS, 1.1 * EVALS[4]))}),
        run_of(EVALS, TRAIN, curves={"eval_loss": Curve.of(np.append(ENDS, ENDS), np.append(EVALS, EVALS))}),
    ),
    "evaluation_unchanged": (run_of(np.full(N, 2.0), TRAIN), run_of(np.full(N, 2.0), TRAIN[::-1])),
    "zero_loss": (zeros_after(0.9), zeros_after(1e-4)),
    "loss_blown_up": (
        run_of(EVALS, changed(TRAIN, slice(60, None), 8.0)),
        run_of(EVALS, changed(TRAIN, slice(60, 64), 8.0)),
    ),
    "loss_spike": (run_of(EVALS, changed(TRAIN, 60, 8.0)), run_of(EVALS, changed(TRAIN, 60, 1.3 * TRAIN[60]))),
    "gradient_explosion": (
        with_curve("grad_norm", changed(np.abs(noisy(np.ones(LINES), 0.2)), 50, 60.0)),
        with_curve("grad_norm", changed(np.abs(noisy(np.ones(LINES), 0.2)), 50, 3.0)),
    ),
    "gradient_overflow": (
        with_curve("grad_norm", changed(np.ones(LINES), slice(20, 40), NAN)),
        with_curve("grad_norm", changed(np.ones(LINES), 20, NAN)),
    ),
    "not_learning": (run_of([2.0] * N, noisy(np.full(LINES, 2.0), 0.01)), USUAL),
    "memorised": (run_of(EVALS, changed(TRAIN, slice(60, None), 0.004)), run_of(EVALS, changed(TRAIN, slice(60, None), 0.05))),
    "staircase": (
        run_of(EVALS, STAIRS, curves={"epoch": EPOCHS}),
        run_of(EVALS, noisy(2.0 * 0.8 ** (STEPS / 24), 0.02, 3), curves={"epoch": EPOCHS}),
    ),
    "plateau": (USUAL, run_of(noisy(2.0 * np.exp(-np.arange(N) / N), 0.004), TRAIN)),
    "learning_rate_zero": (rates(np.zeros(LINES)), rates(np.linspace(1e-4, 0.0, LINES))),
    "warmup_never_ended": (
        rates(1e-4 * STEPS / LINES, max_steps=20 * N),
        rates(1e-4 * STEPS / LINES, max_steps=200 * N),
    ),
    "no_warmup": (
        rates(np.full(LINES, 1e-4), loss=changed(TRAIN, slice(1, 3), 5.0)),
        rates(WARM, loss=changed(TRAIN, slice(1, 3), 5.0)),
    ),
    "loss_times_accumulation": (
        run_of(EVALS, 4.0 * noisy(falling(LINES), 0.02), config={"gradient_accumulation_steps": 4}),
        run_of(EVALS, noisy(falling(LINES), 0.02), config={"gradient_accumulation_steps": 4}),
    ),
    "validation_below_training": (
        run_of(EVALS, 1.4 * noisy(falling(LINES), 0.02)),
        run_of(EVALS, 1.02 * noisy(falling(LINES), 0.02)),
    ),
    "small_gap": (run_of(EVALS, falling(LINES) - 0.02), run_of(EVALS, falling(LINES) - 0.4)),
    "evaluation_rare": (
        run_of(EVALS[:6], TRAIN, curves={"epoch": Curve.of([20, 120], [1.0, 6.0])}),
        run_of(EVALS, TRAIN, curves={"epoch": Curve.of([20, 480], [0.1, 2.4])}),
    ),
    "evaluation_frequent": (
        run_of(noisy(falling(80), 0.004), TRAIN, curves={"epoch": Curve.of([20, 1600], [0.0125, 1.0])}),
        run_of(noisy(falling(80), 0.004), TRAIN, curves={"epoch": Curve.of([20, 1600], [0.05, 4.0])}),
    ),
    "logging_rare": (run_of(EVALS, TRAIN[:6]), USUAL),
    "eval_loss_by_rows": (
        run_of(EVALS, evaluations=tuple(
            replace(e, reported_loss=1.03 * e.eval_loss) for e in with_rows(USUAL, 40, 0.1).evaluations)),
        run_of(EVALS, evaluations=tuple(
            replace(e, reported_loss=1.0001 * e.eval_loss) for e in with_rows(USUAL, 40, 0.1).evaluations)),
    ),
    "few_validation_rows": (with_rows(USUAL, 1, 0.1), with_rows(USUAL, 16, 0.1)),
    "rows_added": (
        run_of(EVALS, evaluations=tuple(
            replace(e, losses=e.losses.first(10)) if e.step < 100 else replace(e, measured_loss=1.1 * e.eval_loss)
            for e in with_rows(USUAL, 40, 0.1).evaluations)),
        with_rows(USUAL, 40, 0.1),
    ),
    "resumed": (replace(USUAL, segments=(Segment(0), Segment(200))), replace(USUAL, segments=(Segment(0),))),
    "best_not_saved": (saved([200, 480]), saved([200, 260, 480])),
    "both_losses_rise": (
        run_of(noisy(turning(40), 0.005), noisy(turning(160, 0.3), 0.01)),
        run_of(noisy(turning(40), 0.005), learnt(160)),
    ),
    "rise_in_warmup": (
        run_of(turning(20), learnt(80), curves={"learning_rate": Curve.of(5 * np.arange(1, 81), 1e-6 * np.arange(1, 81))}),
        run_of(turning(20), learnt(80), curves={"learning_rate": Curve.of(5 * np.arange(1, 81), np.full(80, 1e-4))}),
    ),
    "validation_set_small": (
        with_rows(run_of(noisy(turning(40, 0.1), 0.002), learnt(160)), 12, 1.5),
        with_rows(run_of(noisy(turning(40, 0.1), 0.002), learnt(160)), 400, 0.05),
    ),
    "score_disagrees": (
        run_of(noisy(turning(40), 0.005), learnt(160), curves={
            "eval_accuracy": Curve.of(20 * np.arange(1, 41), 0.2 + 0.015 * np.arange(40))}),
        run_of(noisy(turning(40), 0.005), learnt(160), curves={
            "eval_accuracy": Curve.of(20 * np.arange(1, 41), 0.8 - 0.015 * np.arange(40))}),
    ),
    "too_noisy": (run_of(NEVER_FELL), run_of(noisy(falling(12), 0.002))),
    "above_best": (run_of(UNEVEN), run_of(noisy(falling(12), 0.002))),
}  # fmt: skip
