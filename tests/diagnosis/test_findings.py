"""Every kind of finding: it is there where it must be, and not in the near twin of that run."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.diagnosis import diagnose
from sightline.runs import Checkpoint, Curve, Finding, Phase, Run, Segment, Severity, Status
from tests.diagnosis.courses import falling, kinds, learnt, live, noisy, run_of, turning, with_rows

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


@pytest.mark.parametrize("kind", CASES)
def test_a_finding_is_there_where_it_must_be(kind):
    """It is one plain sentence with the numbers in it, and says which steps it concerns where there are some."""
    found = [finding for finding in diagnose(CASES[kind][0]).findings if finding.kind == kind]
    assert len(found) == 1
    assert not found[0].message.endswith(".")
    assert "\n" not in found[0].message
    if found[0].from_step is not None:
        assert found[0].to_step is not None and found[0].from_step <= found[0].to_step


@pytest.mark.parametrize("kind", CASES)
def test_its_near_twin_is_silent(kind):
    """The run that looks alike and is not so has no such finding."""
    assert kind not in kinds(diagnose(CASES[kind][1]))


def test_every_kind_is_tested_and_documented():
    """Each kind that the code can give has a case above and a line in docs/diagnosis.md."""
    root = Path(__file__).parents[2]
    source = "\n".join(path.read_text() for path in (root / "src/sightline/diagnosis").glob("*.py"))
    given = set(re.findall(r'note\(\s*"([a-z_]+)"', source))
    assert given == set(CASES)
    documented = set(re.findall(r"^\| `([a-z_]+)` \|", (root / "docs/diagnosis.md").read_text(), re.MULTILINE))
    assert given <= documented


def test_broken_training_is_diverged():
    """NaN, hidden zeros and a loss that blew up for good are the phase, and said first."""
    for kind in ("non_finite_loss", "zero_loss", "loss_blown_up"):
        diagnosis = diagnose(CASES[kind][0])
        assert diagnosis.phase is Phase.DIVERGED
        assert diagnosis.findings[0].kind == kind


def test_a_spike_says_whether_the_loss_came_back():
    """One that came back is a note; one that did not is a warning."""
    message = next(f for f in diagnose(CASES["loss_spike"][0]).findings if f.kind == "loss_spike").message
    assert "it came back" in message


def test_one_spike_in_a_long_log_is_found():
    """However few points of a block its level is taken from: 101,003 lines, jumps at two of them."""
    loss = 1.5 + noisy(np.full(101_003, 0.5), 0.05)
    loss[[70_001, 100_999]] = 9.0, 6.0
    run = replace(run_of(falling(40)), curves={"loss": Curve.of(np.arange(1, loss.size + 1), loss)})
    spike = next(finding for finding in diagnose(run).findings if finding.kind == "loss_spike")
    assert (spike.evidence["spikes"], spike.evidence["highest"]) == (2, 9.0)
    assert (spike.from_step, spike.to_step) == (70_002, 101_000)


def test_the_phase_after_the_fact_needs_less_than_the_alarm():
    """A log that is over is looked at once, a live run after every evaluation: the same curve, two levels."""
    evaluated = [4.0, 3.7, 3.6, 3.5, 3.52, 3.5, 3.58, 3.7, 3.6, 3.75, 3.9, 3.78]
    run = run_of(evaluated, learnt(4 * len(evaluated)))
    assert diagnose(run).phase is Phase.OVERFITTING
    assert diagnose(replace(run, status=Status.RUNNING)).phase is not Phase.OVERFITTING


def test_stairs_measure_memorising_only_as_far_as_the_gap_on_equal_terms_grew():
    """The train probe decides: no gap beside the stairs, no memorising; a gap as high as the stairs, all of it."""
    epochs = {"epoch": EPOCHS}
    ends = np.arange(20, 20 * N + 1, 20)
    along = Curve.of(ends, EVALS - 0.002)
    apart = Curve.of(ends, EVALS * 0.8 ** np.floor(ends / 120))

    def stairs(probe: Curve) -> Finding:
        found = diagnose(run_of(EVALS, STAIRS, curves={**epochs, "probe_loss": probe})).findings
        return next(finding for finding in found if finding.kind == "staircase")

    no, yes = stairs(along), stairs(apart)
    assert no.evidence["memorised"] == pytest.approx(0.0, abs=0.01) and no.severity is Severity.INFO
    assert "not memorising" in no.message and "recognised" not in no.message
    assert yes.evidence["memorised"] == pytest.approx(yes.evidence["height"], rel=0.3)
    assert "recognised" in yes.message and "equal terms" in yes.message


def test_a_run_that_learns_nothing_is_not_called_healthy():
    """Its validation loss has settled, at what the model knew before."""
    idle = diagnose(run_of(np.full(N, 2.0), noisy(np.full(LINES, 2.0), 0.01)))
    assert idle.phase is Phase.UNDECIDED and "not_learning" in kinds(idle)


def test_what_was_learnt_in_the_first_lines_is_told():
    """A training loss that fell at once and never again is not one that never fell."""
    loss = changed(noisy(np.full(LINES, 0.5), 0.01), 0, 3.0)
    found = next(f for f in diagnose(run_of(np.full(N, 0.6), loss)).findings if f.kind == "not_learning")
    assert "fell from 3 in its first log lines" in found.message and "nothing more" in found.message


def test_a_loss_of_zero_from_the_start_is_not_called_learnt_by_heart_for_sure():
    """Nothing in the log says that it was ever learnt."""
    found = next(f for f in diagnose(run_of(EVALS, np.full(LINES, 0.001))).findings if f.kind == "memorised")
    assert "since the first log line" in found.message and "not what it seems" in found.message


def test_a_jump_in_the_last_digit_of_a_loss_that_is_learnt_is_no_spike():
    """From 0.0001 to 0.0002 after it has fallen from 2."""
    known = changed(np.maximum(noisy(learnt(LINES), 0.02, 2), 0.0), slice(48, None), 0.0001)
    assert "loss_spike" not in kinds(diagnose(run_of(EVALS, changed(known, [70, 80], 0.0002))))
    assert "loss_spike" in kinds(diagnose(run_of(EVALS, changed(known, [70, 80], 0.2))))


def test_a_loss_above_its_best_has_no_plateau():
    """One sentence does not take back the other."""
    found = kinds(diagnose(run_of(NEVER_FELL)))
    assert "too_noisy" in found and "plateau" not in found


def test_equal_steps_lie_outside_a_rise():
    """What stands in an established or a suspected rise does not equal the best because the noise hides its beginning."""
    for kind in ("overfitting", "rise_suspected", "above_best", "both_losses_rise", "score_disagrees"):
        run = CASES[kind][0]
        diagnosis = diagnose(run)
        assert diagnosis.best is not None and run.eval_loss is not None
        assert diagnosis.best.step in diagnosis.best.equivalent_steps
        assert int(run.eval_loss.steps[-1]) not in diagnosis.best.equivalent_steps


def test_what_counts_as_an_improvement_is_no_equality():
    """Few evaluations know little of their noise; the forecast's band then is the smaller one."""
    diagnosis = diagnose(run_of([0.9, 0.5, 0.3, 0.219, 0.26, 0.23, 0.402]))
    assert diagnosis.best is not None and diagnosis.best.equivalent_steps[-1] < 7 * 20


def test_rows_known_by_heart_are_told_by_whichever_curve_says_so():
    """Few points of the train probe do not hide what the logged losses tell, and tell it alone."""
    known = changed(TRAIN, slice(60, None), 0.004)
    few = Curve.of([120, 240, 480], [0.9, 0.3, 0.2])
    exact = Curve.of([120, 240, 360, 420, 480], [0.9, 0.02, 0.005, 0.005, 0.004])
    assert "memorised" in kinds(diagnose(run_of(EVALS, known, curves={"probe_loss": few})))
    assert "memorised" in kinds(diagnose(run_of(EVALS, TRAIN, curves={"probe_loss": exact})))
    assert "memorised" not in kinds(diagnose(run_of(EVALS, TRAIN, curves={"probe_loss": few})))


def test_rows_known_by_heart_do_not_deny_a_later_best():
    """More steps did bring the validation loss down."""
    run = run_of(2.0 - 0.02 * np.arange(N), changed(TRAIN, slice(40, None), 0.004))
    found = next(f for f in diagnose(run).findings if f.kind == "memorised")
    assert "teach nothing" not in found.message and "lowest after that, at step 480" in found.message


def test_settled_rests_on_more_than_one_evaluation_after_a_gap():
    """One evaluation far beyond the others may be luck or lie beyond a turn."""
    assert diagnose(after_a_gap(60)).phase is Phase.UNDECIDED
    assert diagnose(after_a_gap(2)).phase is Phase.HEALTHY


def test_a_broken_run_is_told_its_break_and_nothing_that_follows_from_it():
    """Zeros are not rows known by heart, and evaluations after the break miss no label."""
    every = 5 * STEPS
    broken = every > 300
    run = run_of(
        changed(EVALS, slice(15, None), NAN),
        curves={
            "loss": Curve.of(every, np.where(broken, 0.0, TRAIN)),
            "grad_norm": Curve.of(every, np.where(broken, NAN, 1.0)),
        },
    )
    diagnosis = diagnose(run)
    assert diagnosis.phase is Phase.DIVERGED and kinds(diagnosis) == {"zero_loss"}
    live_then = diagnose(run.until(320))  # the first evaluation after the break
    assert live_then.phase is Phase.DIVERGED


def test_one_skipped_step_is_no_divergence():
    """In fp16 a step with an overflow is skipped: one zero and one norm that is no number, and the training goes on."""
    every = 5 * STEPS[:60]
    curves = {
        "loss": Curve.of(every, changed(TRAIN[:60], 59, 0.0)),
        "grad_norm": Curve.of(every, changed(np.ones(60), 59, NAN)),
    }
    assert diagnose(run_of(EVALS[:15], curves=curves)).phase is not Phase.DIVERGED


def test_a_broken_base_model_has_no_checkpoint_to_go_back_to():
    """Its evaluation at step 0 was no number already."""
    steps = np.arange(0, 100, 20)
    run = run_of(
        [], curves={"eval_loss": Curve.of(steps, np.full(5, NAN)), "loss": Curve.of(steps + 5, np.full(5, NAN))}
    )
    message = diagnose(run).findings[0].message
    assert "base model" in message and "go back" not in message
    only = run_of([], curves={"eval_loss": Curve.of(steps, np.full(5, NAN)), "loss": Curve.of(steps + 5, TRAIN[:5])})
    assert any("base model" in f.message for f in diagnose(only).findings if f.kind == "non_finite_eval_loss")


def test_the_rows_that_gave_no_number_are_counted():
    """They are what to look at."""
    whole = with_rows(run_of(EVALS, TRAIN), 40, 0.1)
    sums = changed(whole.evaluations[5].losses.loss_sums, [7, 9], NAN)
    bad = replace(whole.evaluations[5], eval_loss=NAN, losses=replace(whole.evaluations[5].losses, loss_sums=sums))
    run = replace(
        whole,
        evaluations=(*whole.evaluations[:5], bad, *whole.evaluations[6:]),
        curves={**whole.curves, "eval_loss": Curve.of(20 * np.arange(1, N + 1), changed(EVALS, 5, NAN))},
    )
    found = next(f for f in diagnose(run).findings if f.kind == "non_finite_eval_loss")
    assert "2 of 40 rows, the first is row 7" in found.message


def test_after_an_evaluation_that_is_no_number_nobody_is_told_to_train_longer():
    """The loss fell until then; how the model stands now is not known."""
    falling_on = 4.0 * np.arange(1, N + 1) ** -0.3
    run = run_of(changed(falling_on, N - 1, np.inf), TRAIN, max_steps=20 * N)
    assert diagnose(
        replace(run, curves={**run.curves, "eval_loss": run.curves["eval_loss"].until(20 * N - 1)})
    ).phase is (Phase.UNDERFITTING)
    assert diagnose(run).phase is Phase.UNDECIDED


def test_a_learning_rate_of_zero_leaves_no_plateau():
    """Nothing has stood still that was never moved, and the run is not healthy."""
    diagnosis = diagnose(run_of(noisy(np.full(60, 2.0), 0.001), TRAIN, curves={
        "learning_rate": Curve.of(5 * STEPS, np.zeros(LINES))}))  # fmt: skip
    assert diagnosis.phase is Phase.UNDECIDED and "plateau" not in kinds(diagnosis)


def test_a_best_step_that_may_yet_be_saved_is_not_called_unsaved():
    """A running run saves after the evaluation; at the next one, or when it has ended, the step is missing."""
    now, after = saved([200]).until(260), saved([200]).until(280)
    assert "best_not_saved" not in kinds(diagnose(live(now)))
    assert "best_not_saved" in kinds(diagnose(live(after)))
    assert "best_not_saved" in kinds(diagnose(replace(now, status=Status.FINISHED)))


def test_a_constant_rate_after_a_warmup_has_warmed_up():
    """It does not rise at the last step, though it is never higher than there."""
    constant = 1e-4 * np.minimum(STEPS / (0.1 * LINES), 1.0)
    assert "warmup_never_ended" not in kinds(diagnose(rates(constant, max_steps=20 * N)))


def test_nothing_is_settled_under_a_noise_of_many_times_the_loss():
    """Such evaluations tell nothing, whatever their mean does."""
    wild = run_of(np.tile([1e-3, 1e3, 2.0], 8), TRAIN)
    assert diagnose(wild).phase is Phase.UNDECIDED


@pytest.mark.parametrize("factor", [4, 16])
def test_a_summed_loss_is_told_by_its_ratio_where_the_setting_is_not_logged(factor):
    """A steady factor; one that wanders, or a run that accumulates nothing, has other reasons."""
    summed = factor * noisy(0.9 * falling(LINES), 0.02)
    told = diagnose(run_of(EVALS, summed))
    assert "loss_times_accumulation" in kinds(told) and "validation_below_training" not in kinds(told)
    wandering = summed * np.linspace(1.8, 0.6, LINES)
    for other in (run_of(EVALS, wandering), run_of(EVALS, summed, config={"gradient_accumulation_steps": 1})):
        found = diagnose(other)
        assert "loss_times_accumulation" not in kinds(found) and "validation_below_training" in kinds(found)


def test_the_reasons_of_a_validation_loss_below_name_weighting():
    """And it is said of the later half, which is what was compared."""
    found = {f.kind: f.message for f in diagnose(run_of(EVALS, 1.4 * noisy(falling(LINES), 0.02))).findings}
    assert "weighed" in found["validation_below_training"] and "throughout" not in found["validation_below_training"]


@pytest.mark.parametrize("training", ["rises", "falls"])
def test_a_run_that_never_came_near_its_first_evaluation_is_told_that_training_harms(training):
    """Not that it is too noisy to say."""
    losses = [2.553, 3.615, 3.491, 3.195, 3.959, 3.984, 3.72, 4.457, 4.003, 4.172, 3.639, 3.682, 3.934, 3.546, 3.453]
    train = [1.24, 2.03, 2.16, 1.98, 1.79] if training == "rises" else [2.2, 1.9, 1.6, 1.4, 1.2]
    found = [f for f in diagnose(run_of(losses, train)).findings if f.kind in ("above_best", "overfitting")]
    assert len(found) == 1 and "keep step 20" in found[0].message and "learning rate" in found[0].message


def test_a_lucky_first_evaluation_is_no_harm():
    """It lies no further from the others than one of them may."""
    said = [kinds(diagnose(run_of(noisy(np.full(12, 2.0), 0.02, seed), TRAIN))) for seed in range(40)]
    assert sum("above_best" in each for each in said) <= 2


def test_a_loss_that_doubles_far_below_where_it_began_is_not_broken():
    """It fell from 0.8 to 0.14 at once, and stands at 0.3 for a while."""
    loss = np.concatenate(([0.83, 0.3], np.full(20, 0.14), np.full(20, 0.3)))
    assert diagnose(run_of(EVALS[:10], noisy(loss, 0.03))).phase is not Phase.DIVERGED


def test_smooth_curves_have_no_stairs():
    """The error of a stair counts all four quarters it is made of."""
    rng = np.random.default_rng(3)
    steps = np.arange(10, 1501, 10)
    found = 0
    for seed in range(60):
        floor, speed = rng.uniform(0.3, 1.6), rng.uniform(100.0, 800.0)
        loss = noisy((3.0 - floor) * np.exp(-steps / speed) + floor, 0.05, seed)
        curves = {"loss": Curve.of(steps, loss), "epoch": Curve.of(steps, steps / 500)}
        found += "staircase" in kinds(diagnose(run_of([], curves=curves)))
    assert found <= 2


def test_a_loss_that_comes_back_later_has_come_back():
    """Not only in the lines right after the jump."""
    high = changed(TRAIN, slice(40, 52), 3.0 + TRAIN[40:52])
    for loss, words in ((high, "it came back"), (changed(high, slice(52, None), 4.0), "not come back")):
        found = [f for f in diagnose(run_of([], loss)).findings if f.kind in ("loss_spike", "loss_blown_up")]
        assert any(words in f.message or "did not come back" in f.message for f in found)
    message = next(f.message for f in diagnose(CASES["loss_spike"][0]).findings if f.kind == "loss_spike")
    assert "jumped once, at step" in message


def test_many_epochs_need_no_more_evaluations():
    """The interval that is advised gives the whole run some sixty at the most."""
    for epochs, planned in ((6.0, None), (200.0, 600)):
        run = run_of(EVALS[:6], TRAIN, curves={"epoch": Curve.of([20, 120], [epochs / 6.0, epochs])}, max_steps=planned)
        found = next(f for f in diagnose(run).findings if f.kind == "evaluation_rare")
        assert isinstance(advised := found.evidence["eval_steps"], int)
        assert 8 < (planned or 120) / advised <= 61


@pytest.mark.parametrize(("unit", "word"), [("epoch", "epoch"), ("index", "entry")])
def test_what_the_log_counts_is_what_the_findings_count(unit, word):
    """Epochs are not called steps."""
    for kind in ("overfitting", "memorised", "loss_spike", "above_best"):
        found = next(f for f in diagnose(replace(CASES[kind][0], step_unit=unit)).findings if f.kind == kind)
        assert not re.search(r"\bstep \d", found.message) and re.search(rf"\b{word} \d", found.message)
