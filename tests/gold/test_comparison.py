"""Better, worse or not shown: rarely wrong for equal models, right for different ones."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.gold.comparison import Contest, compare
from sightline.gold.corpus_scores import token_mean
from sightline.runs.gold import GoldAnswer


def with_ones(scores) -> np.ndarray:
    scores = np.asarray(scores, float)
    return np.stack([scores, np.ones_like(scores)], axis=1)


def contest(base, tuned, **kwargs) -> Contest:
    return Contest("m", with_ones(base), with_ones(tuned), token_mean, **kwargs)


def binary(rng, n: int, shares=(0.4, 0.4)) -> tuple[np.ndarray, np.ndarray]:
    """Right or wrong of two models that find the same rows hard."""
    hardness = rng.normal(size=n) * 1.5
    cuts = np.quantile(rng.normal(size=4000) * np.sqrt(1.5**2 + 1), shares)
    return tuple((hardness + rng.normal(size=n) < cut).astype(float) for cut in cuts)


def graded(rng, n: int, gain: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores between 0 and 1 with many exact zeros and ones, as F1 has them."""
    skill = rng.beta(0.6, 0.8, size=n)
    noisy = (np.clip(skill + rng.normal(g, 0.3, size=n), 0, 1) for g in (0.0, gain))
    return tuple(np.round(s * 4) / 4 for s in noisy)


def false_answers(draw, runs: int, n: int, **kwargs) -> float:
    wrong = 0
    for seed in range(runs):
        base, tuned = draw(np.random.default_rng(seed), n)
        wrong += compare([contest(base, tuned, **kwargs)])[0].answer is not GoldAnswer.NOT_SHOWN
    return wrong / runs


@pytest.mark.parametrize("n", [20, 120])
def test_equal_right_or_wrong_models_are_rarely_called_different(n):
    """At most 5 % of comparisons; an exact test stays below."""
    assert false_answers(binary, 1000, n, is_binary=True) <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n", [12, 100])
def test_equal_graded_models_are_rarely_called_different(n):
    """At most 5 % of 1,000 comparisons."""
    assert false_answers(graded, 1000, n) <= 0.05


def test_equal_graded_models_are_rarely_called_different_in_short():
    """The same on fewer comparisons: below 5 % but for chance (3 standard errors of 150 draws)."""
    assert false_answers(graded, 150, 30) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_ten_equal_checkpoints_are_rarely_called_different():
    """Holm's correction keeps the chance of even one wrong answer."""
    wrong = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        base, _ = binary(rng, 80)
        contests = [contest(base, np.where(rng.random(80) < 0.2, 1 - base, base), is_binary=True) for _ in range(10)]
        fair = [contest(c.tuned[:, 0], rng.permutation(c.tuned[:, 0]), is_binary=True) for c in contests]
        wrong += any(c.answer is not GoldAnswer.NOT_SHOWN for c in compare(fair))
    assert wrong / 400 <= 0.05


@pytest.mark.parametrize("lower_is_better", [False, True])
def test_real_differences_are_found_with_their_direction(lower_is_better):
    """Better and worse, for scores and for losses."""
    rng = np.random.default_rng(1)
    base, tuned = graded(rng, 200, gain=0.2)
    up, down = compare([contest(base, tuned, lower_is_better=lower_is_better), contest(tuned, base)])
    assert up.answer is (GoldAnswer.WORSE if lower_is_better else GoldAnswer.BETTER)
    assert down.answer is GoldAnswer.WORSE
    assert up.low < up.difference < up.high
    assert up.difference == pytest.approx(tuned.mean() - base.mean())
    assert (up.wins, up.losses) == ((down.wins, down.losses) if lower_is_better else (down.losses, down.wins))
    assert up.wins + up.losses + up.ties == 200


def test_interval_covers_the_true_difference():
    """BCa of graded scores and Tango of shares: about 95 % of 300 simulated sets of 60 rows, at least 92 %."""
    covered = {"graded": 0, "binary": 0}
    truth = {"graded": 0.0, "binary": 0.0}
    big = np.random.default_rng(99)
    truth["graded"] = float(np.subtract(*graded(big, 400_000, gain=0.15)[::-1]).mean())
    truth["binary"] = float(np.subtract(*binary(big, 400_000, (0.3, 0.5))[::-1]).mean())
    for seed in range(300):
        rng = np.random.default_rng(seed)
        drawn = {"graded": graded(rng, 60, gain=0.15), "binary": binary(rng, 60, (0.3, 0.5))}
        for name, pair in drawn.items():
            found = compare([contest(*pair, is_binary=name == "binary")])[0]
            covered[name] += found.low <= truth[name] <= found.high
    assert min(covered.values()) / 300 >= 0.92
    assert max(covered.values()) / 300 <= 0.99


def test_groups_are_answered_on_their_own():
    """Each group has its rows, its scores and a correction over the groups."""
    rng = np.random.default_rng(2)
    base, tuned = np.zeros(90), np.r_[np.ones(30), np.zeros(30), rng.integers(0, 2, 30)]
    groups = ("new",) * 30 + ("old",) * 30 + (None,) * 30
    found = compare([contest(base, tuned, is_binary=True, groups=groups)])[0]
    assert [(g.group, g.base.n, g.answer) for g in found.groups] == [
        ("new", 30, GoldAnswer.BETTER),
        ("old", 30, GoldAnswer.NOT_SHOWN),
    ]
    assert found.groups[0].p_adjusted == pytest.approx(2 * found.groups[0].p_value)


def test_an_undefined_loss_shows_nothing():
    """A loss that is not a number neither wins nor loses."""
    base = np.full(30, 2.0)
    found = compare([contest(base, np.full(30, np.nan), lower_is_better=True)])[0]
    assert found.answer is GoldAnswer.NOT_SHOWN
    assert (found.wins, found.losses) == (0, 0)


def test_contests_of_different_rows_are_corrected_together():
    """Metrics measured on different rows still share one correction."""
    base, tuned = np.zeros(40), np.ones(40)
    together = compare(
        [contest(base, tuned, is_binary=True), contest(base[:7], tuned[:7]), contest(base[:6], base[:6])]
    )
    assert [c.answer for c in together[:2]] == [GoldAnswer.BETTER, GoldAnswer.BETTER]
    assert together[1].p_adjusted == pytest.approx(2 * together[1].p_value)
