"""The statistics meet their definitions, SciPy, statsmodels and published values."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from sightline.gold.corpus_scores import bleu, token_mean
from sightline.gold.detectable import detectable, detectable_mean, detectable_share
from sightline.gold.statistics import (
    Paired,
    bootstrap_intervals,
    holm,
    mcnemar_exact,
    paired_share_interval,
    randomisation_p_values,
)

# statsmodels 0.15, mcnemar(exact=True): wins, losses, p-value.
STATSMODELS = [(6, 0, 0.03125), (5, 0, 0.0625), (10, 3, 0.09228515625), (20, 9, 0.06142834573984146), (33, 33, 1.0)]
STATSMODELS += [(120, 80, 0.005685155996750306), (1, 0, 1.0), (0, 0, 1.0)]


@pytest.mark.parametrize(("wins", "losses", "p_value"), STATSMODELS)
def test_mcnemar_equals_statsmodels(wins, losses, p_value):
    """And does not care which side wins."""
    assert mcnemar_exact(wins, losses) == pytest.approx(p_value, rel=1e-12)
    assert mcnemar_exact(losses, wins) == mcnemar_exact(wins, losses)


@given(st.integers(0, 3000), st.integers(0, 3000))
@settings(max_examples=60, deadline=None)
def test_mcnemar_equals_scipys_binomial_test(wins, losses):
    """Also past the number of rows at which the sum is left to SciPy."""
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert mcnemar_exact(wins, losses) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_holm_equals_statsmodels():
    """multipletests(method="holm") of statsmodels 0.15."""
    assert holm([0.01, 0.04, 0.03, 0.005, 0.5, 0.02]) == pytest.approx([0.05, 0.09, 0.09, 0.03, 0.5, 0.08])
    assert holm([0.2]).tolist() == [0.2]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_order_and_never_lowers(p_values):
    """Corrected values are no smaller, at most 1, and ordered as before."""
    adjusted = holm(p_values)
    assert (adjusted >= np.array(p_values)).all()
    assert (adjusted <= 1).all()
    for i, j in itertools.combinations(range(len(p_values)), 2):
        assert (p_values[i] - p_values[j]) * (adjusted[i] - adjusted[j]) >= 0


def score_statistic(delta: float, wins: int, losses: int, n: int) -> float:
    """Tango's statistic from its definition: the variance at the likeliest loss share given the difference."""

    def minus_log_likelihood(q: float) -> float:
        shares = (q + delta, q, 1 - 2 * q - delta)
        counts = (wins, losses, n - wins - losses)
        return -sum(c * math.log(p) if p > 0 else (-1e12 if c else 0.0) for c, p in zip(counts, shares, strict=True))

    low, high = max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12
    q = optimize.minimize_scalar(minus_log_likelihood, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
    return (wins - losses - n * delta) / math.sqrt(n * (2 * q + delta - delta**2))


@pytest.mark.parametrize(("wins", "losses", "n"), [(12, 2, 50), (9, 3, 44), (40, 31, 200), (3, 8, 30)])
def test_share_interval_inverts_the_score_test(wins, losses, n):
    """At each end the score statistic, with its likelihood maximised by SciPy, is the normal quantile."""
    z = stats.norm.ppf(0.975)
    interval = paired_share_interval(wins, losses, n)
    assert score_statistic(interval.low, wins, losses, n) == pytest.approx(z, abs=1e-4)
    assert score_statistic(interval.high, wins, losses, n) == pytest.approx(-z, abs=1e-4)
    mirrored = paired_share_interval(losses, wins, n)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low), abs=1e-9)


def test_share_interval_is_wide_where_nothing_changed():
    """20 rows without a change do not prove that nothing changes."""
    interval = paired_share_interval(0, 0, 20)
    assert interval.low == pytest.approx(-interval.high)
    assert interval.high == pytest.approx(0.161, abs=1e-3)
    assert paired_share_interval(20, 0, 20).high == pytest.approx(1.0)


def skewed(n: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.gamma(1.0, 1.0, n)
    return base, base + rng.normal(0.2, 0.7, n)


def test_bootstrap_interval_equals_scipys():
    """SciPy's BCa interval of the mean of the differences, to what 10,000 resamples can tell."""
    base, tuned = skewed(60)
    ours = bootstrap_intervals([Paired.means(base, tuned)])[0]
    theirs = stats.bootstrap((tuned - base,), np.mean, n_resamples=40_000, method="BCa", rng=5)
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval, abs=0.006)
    assert ours.standard_error == pytest.approx(theirs.standard_error, rel=0.03)


def test_bootstrap_interval_of_a_ratio_equals_scipys():
    """Loss per token is a ratio of sums: rows with their tokens are resampled."""
    rng = np.random.default_rng(4)
    tokens = rng.integers(1, 40, 50).astype(float)
    base, tuned = tokens * rng.gamma(9, 0.3, 50), tokens * rng.gamma(9, 0.25, 50)
    sample = Paired(np.stack([base, tokens], 1), np.stack([tuned, tokens], 1), token_mean)

    def ratio(b, t, k, axis):
        return t.sum(axis=axis) / k.sum(axis=axis) - b.sum(axis=axis) / k.sum(axis=axis)

    theirs = stats.bootstrap((base, tuned, tokens), ratio, paired=True, n_resamples=40_000, method="BCa", rng=5)
    ours = bootstrap_intervals([sample])[0]
    assert (ours.low, ours.high) == pytest.approx(theirs.confidence_interval, abs=0.01)


def test_samples_answered_together_get_the_answers_they_get_alone():
    """Sharing resamples and equal columns changes nothing."""
    base, tuned = skewed(40)
    samples = [Paired.means(base, tuned), Paired.means(base, base + 0.1), Paired.means(tuned, base)]
    together = bootstrap_intervals(samples, resamples=500)
    assert together == [bootstrap_intervals([sample], resamples=500)[0] for sample in samples]
    p_values = randomisation_p_values(samples, resamples=500)
    assert p_values == [randomisation_p_values([sample], resamples=500)[0] for sample in samples]


def test_constant_differences_have_an_interval_of_one_value():
    """No resample differs from the estimate; equal models have a difference of zero, for sure on these rows."""
    scores = np.linspace(0, 1, 30)
    same, shifted = bootstrap_intervals([Paired.means(scores, scores), Paired.means(scores, scores + 0.5)])
    assert (same.low, same.high) == (0.0, 0.0)
    assert shifted.low == pytest.approx(0.5)
    assert shifted.high == pytest.approx(0.5)
    one_row = bootstrap_intervals([Paired.means([0.2], [0.4])])[0]
    assert one_row.low == pytest.approx(0.2)


def mean_of(x, axis):
    return np.mean(x, axis=axis)


@pytest.mark.parametrize(("n", "tolerance"), [(6, 1e-12), (13, 1e-12), (60, 0.006)])
def test_randomisation_p_value_equals_scipys(n, tolerance):
    """SciPy's permutation_test of paired samples: exactly for few rows, to sampling error for many."""
    base, tuned = skewed(n)
    theirs = stats.permutation_test(
        (tuned - base,),
        mean_of,
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if n <= 13 else 100_000,
        rng=2,
    ).pvalue
    assert randomisation_p_values([Paired.means(base, tuned)])[0] == pytest.approx(theirs, abs=tolerance)


def test_randomisation_swaps_whole_rows_of_corpus_counts():
    """For BLEU both models' counts of a row change sides: checked against every swap of a small corpus."""
    rng = np.random.default_rng(6)
    base = rng.integers(1, 9, size=(8, 10)).astype(float)
    tuned = base + rng.integers(0, 3, size=(8, 10))
    observed = abs(bleu(tuned.sum(axis=0)) - bleu(base.sum(axis=0)))
    as_large = 0
    for swaps in itertools.product([False, True], repeat=8):
        swap = np.array(swaps)[:, None]
        a, b = np.where(swap, tuned, base).sum(axis=0), np.where(swap, base, tuned).sum(axis=0)
        as_large += abs(bleu(b) - bleu(a)) >= observed - 1e-9
    assert randomisation_p_values([Paired(base, tuned, bleu)]) == [as_large / 2**8]


def test_equal_and_undefined_differences_show_nothing():
    """P is 1 where no row differs and where a loss is not a number."""
    scores = np.linspace(0, 1, 30)
    broken = Paired.means(scores, np.where(scores > 0.5, np.nan, scores))
    assert randomisation_p_values([Paired.means(scores, scores), broken]) == [1.0, 1.0]
    assert math.isnan(bootstrap_intervals([broken])[0].low)


@pytest.mark.parametrize(("n", "changed", "difference"), [(100, 0.2, 0.1), (30, 0.5, 0.3), (400, 0.1, 0.05)])
def test_detectable_share_is_shown_as_often_as_promised(n, changed, difference):
    """The power by formula is the share of simulated sets in which McNemar's test says so."""
    wanted = detectable_share(n, changed, power=0.6)
    rng = np.random.default_rng(8)
    shares = [(changed + wanted) / 2, (changed - wanted) / 2, 1 - changed]
    table = {}
    shown = 0
    for wins, losses, _ in rng.multinomial(n, shares, size=6000):
        key = (int(wins), int(losses))
        table.setdefault(key, mcnemar_exact(*key) <= 0.05)
        shown += table[key]
    assert shown / 6000 == pytest.approx(0.6, abs=0.02)


def test_what_a_set_can_show_before_it_runs():
    """Six wins without a loss are the least that p = 0.05 allows; more rows show less; Holm asks for more."""
    few, many = detectable(50), detectable(5000)
    assert few.least == 6 / 50
    assert mcnemar_exact(6, 0) <= 0.05 < mcnemar_exact(5, 0)
    assert few.likely > 5 * many.likely
    assert detectable(50, comparisons=10).least == 9 / 50
    assert mcnemar_exact(9, 0) <= 0.005 < mcnemar_exact(8, 0)
    assert detectable(4).likely == 1.0
    assert detectable_share(100, 0.02) > 0.02
    assert detectable_mean(0.1) == pytest.approx(0.28016, abs=1e-4)
