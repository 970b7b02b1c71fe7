"""From a diagnosis to what to do: every rule of the decision, and what a user may set."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sightline.decisions import Policy, decide, judge_run, replay
from sightline.decisions.decide import step_to_keep
from sightline.runs import (
    Action,
    Best,
    Checkpoint,
    Curve,
    Diagnosis,
    Finding,
    Forecast,
    Onset,
    Phase,
    Run,
    Severity,
    Status,
)
from tests.diagnosis.courses import learnt, noisy, run_of, turning

GOING = Run(Path("a"), "test", "a", status=Status.RUNNING)
BEST = Best(100, 1.5, (100,))
LITTLE = Forecast(chance=0.01, expected_gain=0.001, near_chance=0.0, band=0.01, planned_end=500, warming_up=False)


def judged(phase: Phase, forecast: Forecast | None = LITTLE, *findings: Finding) -> Diagnosis:
    """Return a diagnosis of a phase, with these chances."""
    onset = Onset(100, 80, 140) if phase is Phase.OVERFITTING else None
    return Diagnosis(phase, 0.9, findings, onset=onset, best=BEST, forecast=forecast)


@pytest.mark.parametrize("phase", [Phase.HEALTHY, Phase.OVERFITTING, Phase.UNDECIDED, Phase.UNDERFITTING])
@pytest.mark.parametrize(
    ("chance", "gain", "action"),
    [(0.01, 0.001, Action.STOP), (0.2, 0.001, Action.CONTINUE), (0.01, 0.05, Action.CONTINUE)],
)
def test_a_live_run_stops_when_neither_chance_nor_gain_is_worth_it(phase, chance, gain, action):
    """Both must be small: a small chance of much is worth going on for."""
    decision = decide(GOING, judged(phase, replace(LITTLE, chance=chance, expected_gain=gain)), Policy())
    assert decision.action is action
    assert decision.keep_step == 100


@pytest.mark.parametrize("name", ["worthwhile_chance", "worthwhile_gain"])
def test_what_is_worthwhile_is_the_users_to_say(name):
    """A user who wants every improvement goes on where the default stops."""
    assert decide(GOING, judged(Phase.HEALTHY), Policy()).action is Action.STOP
    assert decide(GOING, judged(Phase.HEALTHY), replace(Policy(), **{name: 0.0})).action is Action.CONTINUE


def test_stopping_early_can_be_switched_off():
    """The reason is still given, with the remark that nothing is done."""
    decision = decide(GOING, judged(Phase.HEALTHY), Policy(stop_early=False))
    assert decision.action is Action.CONTINUE
    assert "switched off" in decision.why
    assert decide(replace(GOING, status=Status.FINISHED), judged(Phase.HEALTHY), Policy(stop_early=False)).action is (
        Action.STOP
    )


def test_a_broken_run_stops_whatever_was_hoped():
    """The reason names what broke."""
    broke = Finding("non_finite_loss", Severity.CRITICAL, "the training loss is nan since step 60")
    decision = decide(GOING, judged(Phase.DIVERGED, None, broke), Policy())
    assert decision.action is Action.STOP and "nan since step 60" in decision.why


def test_nothing_known_is_no_reason_to_stop():
    """Neither is a warm-up that has only just ended."""
    assert decide(GOING, Diagnosis(Phase.UNDECIDED, None), Policy()).action is Action.CONTINUE
    warm = decide(GOING, judged(Phase.HEALTHY, replace(LITTLE, warming_up=True)), Policy())
    assert warm.action is Action.CONTINUE and "warmed up" in warm.why


@pytest.mark.parametrize(
    ("phase", "action"),
    [(Phase.OVERFITTING, Action.STOP), (Phase.HEALTHY, Action.STOP), (Phase.UNDERFITTING, Action.CONTINUE)],
)
def test_a_run_that_ended_is_told_whether_more_steps_would_help(phase, action):
    """Only one that still fell would have gained, though of its plan nothing is left."""
    hopeful = replace(LITTLE, chance=0.5, expected_gain=0.05)
    over = replace(LITTLE, chance=0.0, expected_gain=0.0, near_chance=0.97)
    for ended in (replace(GOING, status=Status.FINISHED), run_of([2.0], max_steps=20)):
        for ahead in (hopeful, over):
            decision = decide(ended, judged(phase, ahead), Policy())
            assert decision.action is action
            assert "rest of the run" not in decision.why


def disagreeing(**evidence: float | str | None) -> Diagnosis:
    """Return a diagnosis of a run whose score rose with its loss, of which nothing more is to be hoped."""
    told = {"score": "eval_f1", "best_score": 0.71, "best_score_step": 300, **evidence}
    return judged(Phase.HEALTHY, LITTLE, Finding("score_disagrees", Severity.WARNING, "m", evidence=told))


@pytest.mark.parametrize(
    ("chance", "limit", "said"),
    [(0.03, 0.05, "3 %"), (0.049, 0.05, "4.9 %"), (0.0498, 0.05, "just under 5 %"), (0.001, 0.05, "under 1 %")],
)
def test_a_chance_below_a_limit_does_not_read_like_it(chance, limit, said):
    """Rounded to the same number the sentence would contradict itself."""
    why = decide(GOING, judged(Phase.HEALTHY, replace(LITTLE, chance=chance)), Policy(worthwhile_chance=limit)).why
    assert f"has a chance of {said}, below the 5 %" in why and "more than 1.0 % below that of step 100" in why


def test_a_run_that_ended_in_its_warm_up_is_not_told_how_it_goes_on():
    """There is no going on."""
    ended = replace(GOING, status=Status.FINISHED)
    why = decide(ended, judged(Phase.HEALTHY, replace(LITTLE, warming_up=True)), Policy()).why
    assert "goes on" not in why and "has ended" in why


def test_the_score_decides_which_step_is_kept():
    """Where it disagrees with the loss, its best step is kept; with too few scores to look ahead the run goes on."""
    assert step_to_keep(disagreeing()) == 300
    decision = decide(GOING, disagreeing(chance=None, expected_gain=None, near_chance=None), Policy())
    assert decision.action is Action.CONTINUE and "too few scores" in decision.why


@pytest.mark.parametrize(
    ("chance", "gain", "action"),
    [(0.01, 0.001, Action.STOP), (0.2, 0.001, Action.CONTINUE), (0.01, 0.05, Action.CONTINUE)],
)
def test_where_the_score_decides_its_own_chance_stops_the_run(chance, gain, action):
    """What is hoped of the loss does not count, and the sentence names the score."""
    diagnosis = disagreeing(chance=chance, expected_gain=gain, near_chance=chance)
    for hopeful in (diagnosis, replace(diagnosis, forecast=replace(LITTLE, chance=0.9, expected_gain=0.2))):
        decision = decide(GOING, hopeful, Policy())
        assert decision.action is action and decision.keep_step == 300
        assert "eval_f1" in decision.why and "0.71" in decision.why


@pytest.mark.parametrize(("near_chance", "action"), [(0.9, Action.CONTINUE), (0.1, Action.STOP)])
def test_of_a_run_that_ended_the_score_says_whether_more_steps_would_help(near_chance, action):
    """Of its plan nothing is left: what counts is whether the score still rose."""
    diagnosis = disagreeing(chance=0.0, expected_gain=0.0, near_chance=near_chance)
    assert decide(replace(GOING, status=Status.FINISHED), diagnosis, Policy()).action is action


def test_the_kept_checkpoint_is_named_where_it_is_saved():
    """A deleted one is not."""
    kept, gone = (Checkpoint(100, Path("out/checkpoint-100"), deleted=deleted) for deleted in (False, True))
    for checkpoints, name in (((kept,), "checkpoint-100"), ((gone,), None), ((), None)):
        decision = decide(replace(GOING, checkpoints=checkpoints), judged(Phase.HEALTHY), Policy())
        assert decision.keep_checkpoint == name


def test_an_unsaved_best_step_is_kept_by_the_checkpoint_that_equals_it():
    """Of a run that is over; one that goes on may save the best step in a moment."""
    losses = {1: 2.0, 2: 1.6, 3: 1.5, 4: 1.46, 5: 1.452, 6: 1.451, 7: 1.45, 8: 1.4505, 9: 1.452, 10: 1.453}
    saved = tuple(Checkpoint(20 * k, Path(f"out/checkpoint-{20 * k}")) for k in (2, 5, 10))
    run = run_of(list(losses.values()), learnt(40), checkpoints=saved, status=Status.FINISHED)
    verdict = judge_run(run)
    assert verdict.decision.keep_step == 140 and verdict.decision.keep_checkpoint == "checkpoint-100"
    found = next(f for f in verdict.diagnosis.findings if f.kind == "best_not_saved")
    assert found.evidence["nearest"] == 100
    assert judge_run(replace(run, status=Status.RUNNING)).decision.keep_checkpoint is None


def test_a_stricter_false_alarm_takes_more_evidence():
    """At one in a million the same rise is not called."""
    run = replace(run_of(noisy(turning(40), 0.01, 2)[:29], learnt(116)), status=Status.RUNNING)
    assert judge_run(run).diagnosis.phase is Phase.OVERFITTING
    assert judge_run(run, Policy(false_alarm=1e-9)).diagnosis.phase is not Phase.OVERFITTING


def test_a_run_stopped_because_it_fell_too_slowly_is_not_told_it_was_cut_short():
    """What was left of its plan was not worth it; a longer plan from the start would have been."""
    curve = Curve.of(np.arange(20, 120, 20), np.linspace(2.0, 1.5, 5))
    stopped = replace(GOING, status=Status.STOPPED, curves={"eval_loss": curve}, max_steps=150)
    diagnosis = judged(Phase.UNDERFITTING, replace(LITTLE, near_chance=0.7))
    decision = decide(stopped, diagnosis, Policy())
    assert "too slowly for what was left of the plan" in decision.why and "70 %" in decision.why
    whole = decide(replace(stopped, max_steps=100), diagnosis, Policy())
    assert "has ended while its validation loss still fell" in whole.why


@pytest.mark.parametrize(("unit", "word"), [("epoch", "epoch"), ("index", "entry")])
def test_the_reason_counts_what_the_log_counts(unit, word):
    """Also in the JSON, which nobody lays out: epochs are no steps."""
    run = replace(run_of(noisy(turning(40), 0.005), learnt(160)), step_unit=unit, max_steps=1600)
    why = judge_run(run).decision.why
    assert f"since about {word} " in why and not re.search(r"\bstep \d", why)


@pytest.mark.parametrize("max_steps", [240, 480])
def test_evaluations_that_do_not_see_the_model_recommend_no_checkpoint(max_steps):
    """Equal for ever: the first of them is no best, whether the run has ended or not."""
    saved = tuple(Checkpoint(step, Path(f"checkpoint-{step}")) for step in (20, 240))
    verdict = judge_run(run_of(np.full(12, 2.0), learnt(48), max_steps=max_steps, checkpoints=saved))
    assert "evaluation_unchanged" in {finding.kind for finding in verdict.diagnosis.findings}
    assert verdict.diagnosis.best is None
    assert (verdict.decision.keep_step, verdict.decision.keep_checkpoint) == (None, None)
    assert "do not see the weights that are trained" in verdict.decision.why
    replayed = replay(verdict.run)
    assert (replayed.best_step, replayed.regret) == (None, None)


def test_a_best_before_the_evaluation_lost_sight_of_the_model_is_kept():
    """What was measured while it still moved counts."""
    losses = np.concatenate(([2.1234567, 1.8123456, 1.7123456], np.full(9, 1.9123456)))
    verdict = judge_run(run_of(losses, learnt(48), max_steps=240))
    assert "evaluation_unchanged" in {finding.kind for finding in verdict.diagnosis.findings}
    assert verdict.decision.keep_step == 60
