"""decide(): from a run and its diagnosis to what to do with it."""

from __future__ import annotations

import math

from sightline.decisions.policy import Policy
from sightline.diagnosis.context import in_units_of, percent, portion
from sightline.diagnosis.setup import saved_equal
from sightline.runs import Action, Best, Decision, Diagnosis, Finding, Forecast, Phase, Run, Status
from sightline.runs.gold import Choice


def decide(run: Run, diagnosis: Diagnosis, policy: Policy) -> Decision:
    """Return what to do with a run: pure, the same for a live run and a finished log.

    Parameters
    ----------
    run : Run
        As it stands.
    diagnosis : Diagnosis
        Of the same run.
    policy : Policy
        What the user wants weighed.

    Returns
    -------
    Decision
        Of a run that has ended, ``stop`` says that more steps would not help, ``continue`` that they might.
    """
    keep = step_to_keep(diagnosis)
    action, why = _weigh(run, diagnosis, policy)
    choice = gold_choice(run)
    if choice is not None and choice.step is not None and choice.step != keep:
        keep, why = choice.step, f"{why}; the gold set speaks for {choice.checkpoint}: {choice.why}"
    if action is Action.STOP and not policy.stop_early and run.status is Status.RUNNING:
        action, why = Action.CONTINUE, f"{why}; stopping early is switched off"
    checkpoint = checkpoint_of(run, keep) or _equal_checkpoint(run, diagnosis, keep)
    return Decision(action, keep, checkpoint, in_units_of(run, why))


def step_to_keep(diagnosis: Diagnosis) -> int | None:
    """Return the step whose weights are best: by the task score where it disagrees with the loss."""
    score = deciding_score(diagnosis)
    if score is not None and isinstance(step := score.evidence.get("best_score_step"), int):
        return step
    return None if diagnosis.best is None else diagnosis.best.step


def deciding_score(diagnosis: Diagnosis) -> Finding | None:
    """Return the finding that a task score disagrees with the loss and decides, None where the loss does."""
    return diagnosis.finding("score_disagrees")


def gold_choice(run: Run) -> Choice | None:
    """Return the checkpoint that the newest judgement speaks for against the loss, None where it does not."""
    choices = [j.choice for j in run.judgements if j.choice is not None]
    newest = choices[-1] if choices else None
    return newest if newest is not None and newest.checkpoint != newest.by_loss else None


def checkpoint_of(run: Run, step: int | None) -> str | None:
    """Return the folder name of the saved state at a step, None if there is none."""
    return next((c.path.name for c in run.checkpoints if c.step == step and not c.deleted), None)


def _equal_checkpoint(run: Run, diagnosis: Diagnosis, keep: int | None) -> str | None:
    """Return the best of the checkpoints that cannot be told apart from an unsaved best step, None if there is none."""
    best = diagnosis.best
    if best is None or best.step != keep or run.status is Status.RUNNING:
        return None  # of a run that goes on the best step may be saved in a moment
    return checkpoint_of(run, saved_equal(run, best))


def _weigh(run: Run, diagnosis: Diagnosis, policy: Policy) -> tuple[Action, str]:
    """Go on or stop, and the one sentence why."""
    forecast, best = diagnosis.forecast, diagnosis.best
    if diagnosis.phase is Phase.DIVERGED:
        return Action.STOP, f"the training broke: {diagnosis.findings[0].message}" if diagnosis.findings else "it broke"
    score = deciding_score(diagnosis)
    if score is not None:
        return _by_score(run, score, policy)
    if diagnosis.finding("evaluation_unchanged") is not None:
        return (
            Action.CONTINUE,
            "the evaluations do not see the weights that are trained, so they tell nothing of the run",
        )
    if forecast is None or best is None:
        what = "say whether more steps would have helped" if run.has_ended else "stop"
        return Action.CONTINUE, f"too little is known to {what}"
    if run.has_ended:
        planned = run.max_steps is not None and run.last_step is not None and run.last_step < run.max_steps
        slow = planned and _is_over(forecast.chance, forecast.expected_gain, policy)
        return _look_back(diagnosis, forecast, best, too_slow=slow)
    if forecast.warming_up:
        return (
            Action.CONTINUE,
            "the learning rate has only just warmed up, so the run so far does not tell how it goes on",
        )
    hope = _hope(forecast, best, policy)
    over = _is_over(forecast.chance, forecast.expected_gain, policy)
    if diagnosis.phase is Phase.OVERFITTING:
        action, joined = (Action.STOP, "and") if over else (Action.CONTINUE, "but")
        return action, f"the validation loss has risen since about step {_since(diagnosis)}, {joined} {hope}"
    if over:
        falls = "the validation loss still falls, but too slowly: " if diagnosis.phase is Phase.UNDERFITTING else ""
        return Action.STOP, f"{falls}{hope}, below the {portion(policy.worthwhile_chance)} worth going on for"
    if forecast.chance < policy.worthwhile_chance:
        return Action.CONTINUE, (
            f"{hope}; that is little, but what may come is worth {percent(forecast.expected_gain)} on average, more than "
            f"the {percent(policy.worthwhile_gain)} that matters"
        )
    return Action.CONTINUE, hope


def _hope(forecast: Forecast, best: Best, policy: Policy) -> str:
    """Say how likely a better checkpoint is, and what counts as better: by the noise, and by what matters."""
    if forecast.chance == 0.0:
        return f"nothing is left of the run in which {_better(forecast, best)} could come"
    chance = _against(forecast.chance, policy.worthwhile_chance)
    return f"in the rest of the run {_better(forecast, best)} has a chance of {chance}"


def _better(forecast: Forecast, best: Best) -> str:
    return f"a loss more than {percent(-math.expm1(-forecast.band), 1)} below that of step {best.step}"


def _against(chance: float, limit: float) -> str:
    """Write a chance with as many digits as tell it from the limit it is held against."""
    if portion(chance) != portion(limit) or chance >= limit:
        return portion(chance)
    exact = f"{100.0 * chance:.1f}"
    return f"{exact} %" if float(exact) < 100.0 * limit else f"just under {portion(limit)}"


def _is_over(chance: float, expected_gain: float, policy: Policy) -> bool:
    """Return whether neither the chance of a better checkpoint nor what it may bring is worth going on for."""
    return chance < policy.worthwhile_chance and expected_gain < policy.worthwhile_gain


def _by_score(run: Run, score: Finding, policy: Policy) -> tuple[Action, str]:
    """Weigh a run whose task score rose with its loss by what the score can still gain."""
    told = score.evidence
    chance, gain, near = (told.get(name) for name in ("chance", "expected_gain", "near_chance"))
    rose = f"{told.get('score', 'the task score')} has risen with the validation loss, and the score decides"
    if not isinstance(chance, float) or not isinstance(gain, float) or not isinstance(near, float):
        return Action.CONTINUE, f"{rose}; there are too few scores to tell what is still to come"
    best = f"a better one than {told.get('best_score'):.4g} at step {told.get('best_score_step')}"
    if run.has_ended:
        action = Action.CONTINUE if near >= 0.5 else Action.STOP
        return action, f"{rose}: a quarter more steps would have brought {best} with a chance of {portion(near)}"
    hope = f"{rose}: {best} in the rest of the run has a chance of {_against(chance, policy.worthwhile_chance)}"
    if _is_over(chance, gain, policy):
        return Action.STOP, f"{hope}, below the {portion(policy.worthwhile_chance)} worth going on for"
    return Action.CONTINUE, hope


def _look_back(diagnosis: Diagnosis, forecast: Forecast, best: Best, *, too_slow: bool) -> tuple[Action, str]:
    """Say of a run that has ended whether more steps would have helped.

    ``too_slow`` where it was stopped before its end because the steps that were left of its plan were not worth it.
    """
    if forecast.warming_up:
        return Action.CONTINUE, (
            "the run has ended when its learning rate had only just warmed up, which does not tell what more steps would "
            "have brought"
        )
    if diagnosis.phase is Phase.UNDERFITTING and too_slow:
        return Action.CONTINUE, (
            "the validation loss still fell, too slowly for what was left of the plan; a plan with a quarter more steps from "
            f"the start would have brought {_better(forecast, best)} with a chance of {portion(forecast.near_chance)}"
        )
    if diagnosis.phase is Phase.UNDERFITTING:
        return Action.CONTINUE, (
            f"the run has ended while its validation loss still fell: a quarter more steps would have brought "
            f"{_better(forecast, best)} with a chance of {portion(forecast.near_chance)}"
        )
    if diagnosis.phase is Phase.OVERFITTING:
        return Action.STOP, f"the validation loss has risen since about step {_since(diagnosis)}"
    if diagnosis.phase is Phase.HEALTHY:
        return Action.STOP, (
            f"the run has ended, and a quarter more steps would have brought {_better(forecast, best)} with a chance of "
            f"{portion(forecast.near_chance)} only"
        )
    return Action.STOP, "the run has ended, and nothing says that more steps would have helped"


def _since(diagnosis: Diagnosis) -> int | None:
    return None if diagnosis.onset is None else diagnosis.onset.step
