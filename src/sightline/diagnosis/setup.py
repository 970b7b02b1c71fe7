"""What was set: learning rate, weighting of the evaluation, resumes, and whether the best step was saved."""

from __future__ import annotations

import math

import numpy as np

from sightline.diagnosis.context import Context, note, percent, plural, times
from sightline.diagnosis.learning import MEMORISED
from sightline.diagnosis.median import median
from sightline.diagnosis.noise import Z95
from sightline.runs import Best, Finding, Run, Severity, Status

ZERO_SHARE = 0.1
EARLY = 0.03  # share of the run in which a first jump belongs to a missing warm-up
SPREAD = (
    0.10  # standard deviation over rows of a change of the loss, over the loss, where `sightline check` has no better
)
FEW_ROWS = 16  # with that spread fewer leave changes of 5 % to chance
APART = 0.005  # relative difference of two ways of averaging that is worth a word


def learning_rate(context: Context) -> Finding | None:
    """Find a learning rate that is zero, still rising at the end, or too high at the first steps."""
    curve = context.run.curves.get("learning_rate")
    if curve is None or len(curve := curve.finite()) < 4:
        return None
    span = int(curve.steps[0]), int(curve.steps[-1])
    most = float(curve.values.max())
    if most <= 0.0:
        message = "the learning rate is 0 at every logged step: no weight moves; set learning_rate"
        return note("learning_rate_zero", Severity.CRITICAL, message, span)
    zeros = np.flatnonzero(curve.values[1:-1] <= 0.0)
    if zeros.size > ZERO_SHARE * len(curve):
        message = (
            f"the learning rate is 0 in {zeros.size} of {len(curve)} log lines: nothing is learnt there; check "
            "max_steps against the schedule's own number of steps"
        )
        where = int(curve.steps[zeros[0] + 1]), int(curve.steps[zeros[-1] + 1])
        return note("learning_rate_zero", Severity.WARNING, message, where, zeros=int(zeros.size), logged=len(curve))
    ended = context.run.max_steps is not None and span[1] >= 0.98 * context.run.max_steps
    if (
        ended
        and float(curve.values[-1]) >= most
        and float(curve.values[0]) < 0.9 * most
        and np.all(np.diff(curve.values) >= 0)
        and float(np.interp(0.9 * span[1], curve.steps, curve.values)) < most
    ):
        message = (
            f"the learning rate still rose at the last step ({most:.2g}): the warm-up was as long as the run; set "
            "warmup_ratio=0.03 to 0.1"
        )
        return note("warmup_never_ended", Severity.WARNING, message, span, last=most)
    return _no_warmup(context, float(curve.values[0]) >= 0.95 * most)


def _no_warmup(context: Context, full_at_once: bool) -> Finding | None:
    """A jump of the training loss at the very start under the full learning rate."""
    train = context.train
    if not full_at_once or len(train) < 20 or float(train.values.min()) <= 0.0:
        return None
    early = train.values[: max(4, int(EARLY * len(train)) + 1)]
    peak = int(np.argmax(early))
    if peak == 0 or float(early[0]) < MEMORISED or float(early[peak]) < 1.5 * float(early[0]):
        return None
    message = (
        f"the training loss jumped from {float(early[0]):.4g} to {float(early[peak]):.4g} at step "
        f"{int(train.steps[peak])} under the full learning rate: set warmup_ratio=0.03 to 0.1"
    )
    return note("no_warmup", Severity.WARNING, message, (int(train.steps[0]), int(train.steps[peak])))


def row_weighted_evaluation(context: Context) -> Finding | None:
    """Say where the Trainer's eval_loss is not the token mean, and by how much."""
    both = [(e.eval_loss, e.reported_loss) for e in context.run.evaluations if e.reported_loss is not None]
    shares = [abs(reported / exact - 1.0) for exact, reported in both if np.isfinite(exact) and exact > 0.0]
    if not shares or (share := float(median(shares))) < APART:
        return None
    message = (
        f"the Trainer's eval_loss differs from the exact token mean by {percent(share, 1)}: it weighs batches by rows and "
        "changes with per_device_eval_batch_size; this verdict uses the exact one"
    )
    return note("eval_loss_by_rows", Severity.INFO, message, difference=share)


def few_rows(context: Context) -> Finding | None:
    """Find a validation loss that rests on so few rows that it says little of others."""
    scored = [len(e.losses.loss_sums) for e in context.run.evaluations if e.losses is not None]
    if not scored or scored[-1] >= FEW_ROWS:
        return None
    rows = scored[-1]
    visible = Z95 * SPREAD / math.sqrt(rows)
    message = (
        f"the validation loss is that of {plural(rows, 'row')}: another choice of rows could move a change of it by about "
        f"{percent(visible)} (with a usual spread over rows), so what is said here may not hold on others; give more "
        "validation rows"
    )
    return note("few_validation_rows", Severity.WARNING, message, rows=rows, visible_change=visible)


def rows_added(context: Context) -> Finding | None:
    """Say that the validation loss goes on from fewer rows than are scored now, and what those now scored give."""
    known = [e for e in context.run.evaluations if e.losses is not None and math.isfinite(e.loss_of_rows)]
    if not known or known[-1].measured_loss is None or known[-1].losses is None:
        return None
    last, rows = known[-1], len(known[-1].losses.loss_sums)
    first = next(e for e in known if e.losses is not None and len(e.losses.loss_sums) == rows)
    before = len(known[0].losses.loss_sums) if known[0].losses is not None else 0
    message = (
        f"since step {first.step} {rows} validation rows are scored, {before} at first; eval_loss goes on from the first "
        f"{before}, so that all its points can be compared: on the {rows} the last one is {last.loss_of_rows:.4g} where it "
        f"says {last.eval_loss:.4g}"
    )
    span = first.step, last.step
    return note(
        "rows_added", Severity.INFO, message, span, rows=rows, rows_before=before, measured_loss=last.loss_of_rows
    )


def resumed(context: Context) -> Finding | None:
    """Say that a run was resumed or rolled back, and from where."""
    later = [segment for segment in context.run.segments if segment.from_step > 0]
    if not later:
        return None
    first, last = later[0].from_step, later[-1].from_step
    where = f"at step {first}" if len(later) == 1 else f"{times(len(later))}, last at step {last}"
    message = (
        f"the run was resumed {where}; points logged after that step by the part before are left out of its curves"
    )
    return note("resumed", Severity.INFO, message, (first, last), resumes=len(later))


def saved_equal(run: Run, best: Best) -> int | None:
    """Return the best saved step among those that cannot be told apart from the best one, None where none is saved."""
    curve = run.eval_loss
    steps = [c.step for c in run.checkpoints if not c.deleted and c.step in best.equivalent_steps]
    losses = {step: loss for step in steps if curve is not None and (loss := curve.at(step)) is not None}
    return min(losses, key=losses.__getitem__) if losses else None


def unsaved_best(context: Context) -> Finding | None:
    """Find a best step that no checkpoint holds."""
    run, best = context.run, context.best
    kept = [checkpoint.step for checkpoint in run.checkpoints if not checkpoint.deleted]
    if best is None or not kept or best.step in kept:
        return None
    if run.status is Status.RUNNING and best.step == int(context.series.steps[-1]):
        return None  # checkpoints are saved after the evaluation of their step
    equal = saved_equal(run, best)
    if equal is not None:
        message = f"step {best.step} was not saved, but checkpoint {equal} cannot be told apart from it: keep that"
        return note("best_not_saved", Severity.INFO, message, (best.step, best.step), nearest=equal)
    losses = {int(s): float(v) for s, v in zip(context.series.steps, context.series.losses, strict=True)}
    measured = [step for step in kept if step in losses]
    nearest = min(measured, key=losses.__getitem__) if measured else min(kept, key=lambda step: abs(step - best.step))
    cost = f", {percent(losses[nearest] / best.eval_loss - 1.0, 1)} worse" if measured and best.eval_loss > 0.0 else ""
    message = (
        f"the best step {best.step} was never saved, or is deleted; the best checkpoint there is holds step {nearest}"
        f"{cost}; set save_steps equal to eval_steps"
    )
    return note("best_not_saved", Severity.WARNING, message, (best.step, best.step), nearest=nearest)
