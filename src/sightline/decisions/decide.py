"""decide(): from a run and its diagnosis to what to do with it."""

from __future__ import annotations

from sightline.decisions.policy import Policy
from sightline.diagnosis.context import percent
from sightline.runs import Action, Decision, Diagnosis, Finding, Forecast, Phase, Run, Status
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
    return Decision(action, keep, checkpoint_of(run, keep), why)


def step_to_keep(diagnosis: Diagnosis) -> int | None:
    """Return the step whose weights are best: by the task score where it disagrees with the loss."""
    score = _finding(diagnosis, "score_disagrees")
    if score is not None and isinstance(step := score.evidence.get("best_score_step"), int):
        return step
    return None if diagnosis.best is None else diagnosis.best.step


def gold_choice(run: Run) -> Choice | None:
    """Return the checkpoint that the newest judgement speaks for against the loss, None where it does not."""
    choices = [j.choice for j in run.judgements if j.choice is not None]
    newest = choices[-1] if choices else None
    return newest if newest is not None and newest.checkpoint != newest.by_loss else None


def checkpoint_of(run: Run, step: int | None) -> str | None:
    """Return the folder name of the saved state at a step, None if there is none."""
    return next((c.path.name for c in run.checkpoints if c.step == step and not c.deleted), None)


def _weigh(run: Run, diagnosis: Diagnosis, policy: Policy) -> tuple[Action, str]:
    """Go on or stop, and the one sentence why."""
    forecast, best = diagnosis.forecast, diagnosis.best
    if diagnosis.phase is Phase.DIVERGED:
        return Action.STOP, f"the training broke: {diagnosis.findings[0].message}" if diagnosis.findings else "it broke"
    score = _finding(diagnosis, "score_disagrees")
    if score is not None:
        return _by_score(run, score, policy)
    if forecast is None or best is None:
        return Action.CONTINUE, "too little is known to stop"
    if forecast.warming_up:
        return (
            Action.CONTINUE,
            "the learning rate has only just warmed up, so the run so far does not tell how it goes on",
        )
    if _has_ended(run):
        return _look_back(diagnosis, forecast)
    hope = (
        f"a better checkpoint than step {best.step} in the rest of the run has a chance of {percent(forecast.chance)}"
    )
    over = _is_over(forecast.chance, forecast.expected_gain, policy)
    if diagnosis.phase is Phase.OVERFITTING:
        action, joined = (Action.STOP, "and") if over else (Action.CONTINUE, "but")
        return action, f"the validation loss has risen since about step {_since(diagnosis)}, {joined} {hope}"
    if over:
        falls = "the validation loss still falls, but too slowly: " if diagnosis.phase is Phase.UNDERFITTING else ""
        return Action.STOP, f"{falls}{hope}, below the {percent(policy.worthwhile_chance)} worth going on for"
    if forecast.chance < policy.worthwhile_chance:
        return (
            Action.CONTINUE,
            f"{hope}, but then by much ({percent(forecast.expected_gain)} on average over all that may come)",
        )
    return Action.CONTINUE, hope


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
    if _has_ended(run):
        action, joined = (Action.CONTINUE, "train longer") if near >= 0.5 else (Action.STOP, "it had settled")
        return action, f"{rose}: a quarter more steps would bring {best} with a chance of {percent(near)}; {joined}"
    hope = f"{rose}: {best} in the rest of the run has a chance of {percent(chance)}"
    if _is_over(chance, gain, policy):
        return Action.STOP, f"{hope}, below the {percent(policy.worthwhile_chance)} worth going on for"
    return Action.CONTINUE, hope


def _look_back(diagnosis: Diagnosis, forecast: Forecast) -> tuple[Action, str]:
    """Say of a run that has ended whether more steps would have helped: of its plan nothing is left to hope for."""
    if diagnosis.phase is Phase.UNDERFITTING:
        return Action.CONTINUE, (
            "the run has ended while its validation loss still fell: a quarter more steps would have brought a better "
            f"checkpoint with a chance of {percent(forecast.near_chance)}; train longer"
        )
    if diagnosis.phase is Phase.OVERFITTING:
        return Action.STOP, f"the validation loss has risen since about step {_since(diagnosis)}"
    if diagnosis.phase is Phase.HEALTHY:
        return Action.STOP, "the run has ended, and its validation loss had settled"
    return Action.STOP, "the run has ended, and nothing says that more steps would have helped"


def _has_ended(run: Run) -> bool:
    """Return whether the run is over, by its own word or by its plan."""
    last = run.last_step
    over = run.max_steps is not None and last is not None and last >= run.max_steps
    return over or run.status in (Status.FINISHED, Status.STOPPED, Status.FAILED)


def _since(diagnosis: Diagnosis) -> int | None:
    return None if diagnosis.onset is None else diagnosis.onset.step


def _finding(diagnosis: Diagnosis, kind: str) -> Finding | None:
    return next((finding for finding in diagnosis.findings if finding.kind == kind), None)
