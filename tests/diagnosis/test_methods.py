"""The methods against their definitions, on numbers whose answer is known."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from sightline.diagnosis import diagnose
from sightline.diagnosis.curve_noise import curve_noise
from sightline.diagnosis.direction import training_direction
from sightline.diagnosis.forecast import forecast
from sightline.diagnosis.horizon import MEDIAN_GROWTH, Horizon, look_ahead
from sightline.diagnosis.noise import student95
from sightline.diagnosis.onset import locate_onset
from sightline.diagnosis.paired import compare, rise_over_rows
from sightline.diagnosis.rise import FEWEST, MARGIN, alarm_level, log_e_value, log_normal_cdf, weigh_rise
from sightline.diagnosis.series import EvalSeries, block_means
from sightline.diagnosis.trend import NOISE_FORGETTING, follow_trend
from sightline.runs import Curve, ExampleLosses, Phase, Status
from tests.diagnosis.courses import falling, learnt, noisy, run_of, turning, with_rows


@pytest.mark.parametrize("noise", [0.002, 0.02])
def test_the_noise_of_a_curve_is_found(noise):
    """Within a quarter on average over thirty runs."""
    found = [curve_noise(EvalSeries.of(run_of(noisy(falling(40), noise, seed)))).sd for seed in range(30)]
    assert np.mean(found) == pytest.approx(noise, rel=0.25)


def test_noise_is_no_smaller_than_rounding():
    """A log that shows 1.5 at every evaluation has the noise of its last digit."""
    series = EvalSeries.of(run_of([1.5] * 12, significant_digits=4))
    assert curve_noise(series).sd == pytest.approx(1e-3 / 1.5 / math.sqrt(12.0))


def at_steps(steps, losses):
    """Return the evaluations of a run at these steps."""
    return EvalSeries.of(run_of([], curves={"eval_loss": Curve.of(steps, losses)}))


@pytest.mark.parametrize(
    "steps",
    [
        [30, 60, 90, 120, 150, 180, 210, 240],
        [10, 26, 119, 164, 236, 293, 334, 371, 407, 450],
        [1, 2, 3, 4, 5, 6, 8, 9, 30],
        [10, 20, 40, 80, 160, 320, 640],
    ],
)
def test_a_smooth_fall_has_no_noise_wherever_it_is_evaluated(steps):
    """An exponential to a floor, a multiple of it: the noise is a small part of a percent, evenly spaced or not."""
    fall = 0.5 + 3.0 * np.exp(-np.array(steps) / 150.0)
    assert curve_noise(at_steps(steps, fall)).sd < 0.004


def test_few_evaluations_of_a_steep_fall_are_no_noise():
    """A loss that halves within six evaluations: what a fall leaves over is below a percent, not the fall."""
    at = np.arange(6)
    series = EvalSeries.of(run_of(0.6 + 0.6 * np.exp(-0.8 * at)))
    assert curve_noise(series).sd < 0.01


def test_where_the_evaluations_lie_makes_no_rise():
    """A fall that settles, looked at ever more often: by its index it would turn, by its steps it does not."""
    steps = np.unique(np.round(400.0 * (1.0 - np.exp(-np.arange(1, 31) / 12.0)))).astype(int)
    series = at_steps(steps, noisy(1.5 + np.exp(-steps / 60.0), 0.003))
    found = weigh_rise(series)
    assert found is not None and found.log_e < 0.0
    shifted = at_steps(steps * 7 + 3, series.losses)
    assert weigh_rise(shifted).log_e == pytest.approx(found.log_e)


def test_a_rise_at_uneven_steps_is_found_where_it_is():
    """Evaluations that come ever less often: the turn is a step, not a count of evaluations."""
    steps = np.round(20.0 * 1.12 ** np.arange(30)).astype(int)
    done = steps / steps[-1]
    losses = (1.5 + np.exp(-12.0 * done)) * (1.0 + 0.5 * np.maximum(done - 0.5, 0.0))
    found = locate_onset(at_steps(steps, noisy(losses, 0.003)))
    assert found.low <= 0.5 * steps[-1] <= found.high


@pytest.mark.parametrize(("freedom", "quantile"), [(3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1e6, 1.960)])
def test_student_quantiles_are_those_of_the_tables(freedom, quantile):
    """97.5 %, to 4 %."""
    assert student95(freedom) == pytest.approx(quantile, rel=0.04)


def test_the_margin_pays_for_what_the_e_value_lacks():
    """Flat curves with independent errors of the usual size: the mean of 4,000 is below exp(MARGIN)."""
    rng = np.random.default_rng(0)
    for n in (FEWEST, 20):
        assert np.exp(log_e_value(0.005 * rng.standard_normal((4000, n)))).mean() < math.exp(MARGIN)


@pytest.mark.parametrize("losses", [[0.31, 0.35, 0.39, 0.43, 0.47], [2.0, 1.0, 1.3, 1.38, 1.42], [0.9, 0.5, 0.6, 0.7]])
def test_few_evaluations_that_rise_by_tens_of_percent_are_no_healthy_run(losses):
    """From the first one on, or after one fall: called once the run is over, suspected while it goes on."""
    known = run_of(losses, learnt(len(losses)))
    assert diagnose(replace(known, status=Status.FINISHED)).phase is not Phase.HEALTHY
    assert diagnose(replace(known, status=Status.RUNNING)).phase is not Phase.HEALTHY
    assert (
        diagnose(replace(run_of(losses[:1] + losses[1:2] * 4), status=Status.FINISHED)).phase is not Phase.OVERFITTING
    )


def test_five_evaluations_that_rise_steadily_have_turned_at_the_first():
    """The commonest overfit of long epochs."""
    found = diagnose(replace(run_of([0.31, 0.35, 0.39, 0.43, 0.47], learnt(5)), status=Status.FINISHED))
    assert found.phase is Phase.OVERFITTING and found.onset is not None
    assert found.onset.step == found.onset.low == found.best.step


def test_few_noisy_evaluations_are_seldom_called():
    """Four to eight that have settled, with 1 % of noise: at most one in twenty of 200 finished logs."""
    rng = np.random.default_rng(0)
    for n in (4, 5, 8):
        runs = (run_of(1.5 * np.exp(0.01 * rng.standard_normal(n))) for _ in range(200))
        assert sum(diagnose(replace(run, status=Status.FINISHED)).phase is Phase.OVERFITTING for run in runs) <= 10


def test_the_normal_distribution_is_that_of_scipy():
    """Far into both tails."""
    special = pytest.importorskip("scipy.special")
    x = np.linspace(-40.0, 10.0, 501)
    np.testing.assert_allclose(log_normal_cdf(x), special.log_ndtr(x), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_steep_fall_to_a_floor_is_no_rise(share):
    """The fall of a loss, not of its logarithm, with a time that is not one of those tried."""
    at = np.arange(1, 41)
    curves = np.log(1.5 * (1.0 + share * np.exp(-at / 5.3))) + 0.005 * np.random.default_rng(3).standard_normal(
        (200, 40)
    )
    assert np.median(log_e_value(curves)) < 0.0


def test_many_curves_at_once_are_judged_like_each_alone():
    """The rows of a matrix do not see one another."""
    curves = np.cumsum(np.random.default_rng(1).standard_normal((5, 17)), axis=1)
    np.testing.assert_allclose(log_e_value(curves), [float(log_e_value(curve)) for curve in curves], rtol=1e-9)


def test_the_alarm_level_follows_the_error_asked_for():
    """A tenth of the error costs ln 10; a run longer than the window shares it; quiet evaluations need no margin."""
    assert alarm_level(0.005, 40, 1.0) - alarm_level(0.05, 40, 1.0) == pytest.approx(math.log(10.0))
    assert alarm_level(0.05, 480, 1.0) - alarm_level(0.05, 48, 1.0) == pytest.approx(math.log(10.0))
    assert alarm_level(0.05, 40, 0.0) == alarm_level(0.05, 40, 0.4) == pytest.approx(math.log(20.0))
    assert alarm_level(0.05, 40, math.inf) == alarm_level(0.05, 40, 3.0) == pytest.approx(math.log(20.0) + MARGIN)


@pytest.mark.parametrize("n", [20, 40, 120])
def test_the_onset_is_found_where_it_is(n):
    """A rise of 40 % at 0.5 % noise: the interval holds the turn, and is short."""
    onset = locate_onset(EvalSeries.of(run_of(noisy(turning(n), 0.005))))
    assert onset.low <= 20 * (n // 2) <= onset.high
    assert onset.low <= onset.step <= onset.high
    assert onset.high - onset.low <= 20 * n / 4


def test_a_rise_that_starts_slowly_turned_where_it_turned():
    """One that accelerates over the second half: the interval holds the turn, not only where it became visible."""
    at = np.arange(1, 41) / 40
    risen = falling(40) * (1.0 + 0.15 * (np.maximum(at - 0.5, 0.0) / 0.5) ** 2)
    onset = locate_onset(EvalSeries.of(run_of(noisy(risen, 0.005))))
    assert onset.low <= 20 * 20 <= onset.high


def test_the_paired_difference_is_a_ratio_estimator():
    """Mean and standard error by hand: two rows of one and three tokens."""
    counts = np.array([1, 3])
    found = compare(ExampleLosses(np.array([2.0, 6.0]), counts), ExampleLosses(np.array([1.0, 3.0]), counts))
    assert found is not None
    assert found.mean == pytest.approx(4.0 / 4.0)
    assert found.standard_error == pytest.approx(0.0)  # each row differs by exactly one nat a token
    uneven = compare(ExampleLosses(np.array([1.0, 8.0]), counts), ExampleLosses(np.array([1.0, 4.0]), counts))
    assert uneven is not None
    left_over = np.array([0.0 - 1.0 * 1, 4.0 - 1.0 * 3])
    assert uneven.standard_error == pytest.approx(math.sqrt(2.0 * (left_over @ left_over)) / 4.0)


def test_rows_of_other_tokens_are_no_pairs():
    """They are other rows."""
    one, two = (ExampleLosses(np.ones(2), np.array(counts)) for counts in ([1, 2], [2, 1]))
    assert compare(one, two) is None


def test_more_rows_tell_a_rise_better():
    """Four times the rows, twice the standard errors."""
    run = run_of(turning(24, 0.1), learnt(96))
    few, many = (rise_over_rows(EvalSeries.of(with_rows(run, rows, 0.5))) for rows in (50, 800))
    assert few is not None and many is not None
    assert many.z > 2.0 * few.z > 0.0


def test_what_is_left_is_counted_in_learning_rate():
    """Half-way through a linear decay to zero three quarters are learnt: a third of it is still to come."""
    steps = np.arange(0, 501, 10)
    run = run_of(falling(25), curves={"learning_rate": Curve.of(steps, 1.0 - steps / 1000)}, max_steps=1000)
    assert look_ahead(run, 500).growth == pytest.approx(4.0 / 3.0, rel=0.01)


def test_the_end_is_read_off_a_falling_schedule():
    """Where nothing else tells when it ends; a constant one tells nothing."""
    steps = np.arange(0, 501, 10)
    found = look_ahead(run_of(falling(25), curves={"learning_rate": Curve.of(steps, 1.0 - steps / 1000)}), 500)
    assert found.planned_end == pytest.approx(1000, abs=2)
    constant = look_ahead(run_of(falling(25), curves={"learning_rate": Curve.of(steps, np.ones(51))}), 500)
    assert (constant.planned_end, constant.growth) == (None, MEDIAN_GROWTH)


def test_at_a_learning_rate_of_zero_nothing_is_left():
    """Whatever steps are planned."""
    steps = np.arange(0, 501, 10)
    run = run_of(falling(25), curves={"learning_rate": Curve.of(steps, np.maximum(1.0 - steps / 400, 0.0))})
    assert look_ahead(run, 500).draw(8) == pytest.approx(np.ones(8))


def test_a_long_schedule_is_read_off_some_of_its_points():
    """A warm-up and a cosine say the same in 50,000 log lines as in 1,000."""
    said = []
    for lines in (1_000, 50_000):
        done = np.arange(1, lines + 1) / lines
        rates = np.minimum(done / 0.1, 1.0) * (1.0 + np.cos(0.7 * np.pi * done))
        curve = Curve.of(50_000 // lines * np.arange(1, lines + 1), rates)
        said.append(look_ahead(run_of(falling(2500), curves={"learning_rate": curve}), 50_000))
    assert said[1].growth == pytest.approx(said[0].growth, rel=0.01)
    assert said[1].planned_end == pytest.approx(said[0].planned_end, rel=0.01)
    assert not any(horizon.warming_up for horizon in said)


def test_neither_clock_is_trusted_alone():
    """Half-way through a linear decay: half of the paths go by learning, half by steps."""
    steps = np.arange(0, 501, 10)
    run = run_of(falling(25), curves={"learning_rate": Curve.of(steps, 1.0 - steps / 1000)}, max_steps=1000)
    drawn = look_ahead(run, 500).draw(8)
    assert sorted(drawn) == pytest.approx([4.0 / 3.0] * 4 + [2.0] * 4, rel=0.01)


def test_an_unknown_end_is_drawn_from_all_it_may_be():
    """The share that is done is uniform: its quarters are equally likely."""
    done = 1.0 / look_ahead(run_of(falling(25)), 500).draw(256)
    assert np.quantile(done, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.01)


def test_what_has_just_been_reached_is_not_still_to_come():
    """A loss that fell in one step and stays: the mean of its last two evaluations is no level to be better than."""
    series = EvalSeries.of(run_of([2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.5]))
    trend = follow_trend(series)
    assert trend is not None
    here = forecast(series, trend, Horizon(140, 1.0, 1.0, False), 0.01)
    assert here.chance == 0.0 and here.expected_gain == 0.0


@pytest.mark.parametrize("lines", [12, 40, 400])
def test_a_steep_start_is_not_taken_for_noise(lines):
    """A training loss that falls on after a steep start falls, however few lines are logged."""
    done = np.arange(1, lines + 1) / lines
    steep = noisy(0.5 - 0.2 * done + 4.0 * np.exp(-30.0 * done), 0.01)
    curve = Curve.of(np.arange(1, lines + 1), steep)
    assert training_direction(curve, lines // 2) == "falls"
    level = Curve.of(curve.steps, noisy(np.full(lines, 0.5) + 4.0 * np.exp(-30.0 * done), 0.01))
    assert training_direction(level, lines // 2) == "flat"


def test_blocks_end_at_the_last_value():
    """Means of neighbours; what fills no block is left out at the start."""
    means, size = block_means(np.arange(7.0), 3)
    assert size == 3
    np.testing.assert_allclose(means, [2.0, 5.0])


@pytest.mark.parametrize("seed", range(3))
def test_noise_that_has_fallen_is_forgotten_sooner(seed):
    """Where it falls a hundredfold the filters that forget fast count; where it stays the others count more than there."""
    shares = []
    for late in (0.002, 0.2):
        noise = np.repeat([0.2, late], 50) * np.random.default_rng(seed).standard_normal(100)
        trend = follow_trend(EvalSeries.of(run_of(falling(100) * np.exp(noise))))
        shares.append(float(trend.state.weights[NOISE_FORGETTING.max() == NOISE_FORGETTING].sum()))
    assert shares[0] > 0.99 and shares[1] < 0.9


def test_an_onset_is_never_a_single_evaluation_and_holds_the_best():
    """A turn lies between two evaluations, even where there is no noise at all."""
    sharp = np.concatenate([3.0 - 0.1 * np.arange(12), 1.9 + 0.3 * np.arange(1, 13)])
    onset = locate_onset(EvalSeries.of(run_of(sharp)))
    assert onset.low < 20 * 12 < onset.high
    jump = np.concatenate([2.0 - 0.01 * np.arange(20), [2.4]])
    onset = locate_onset(EvalSeries.of(run_of(jump)))
    assert onset.low <= 20 * 20 <= onset.high
