"""diagnose() and decide() as users call them: from a run alone."""

from __future__ import annotations

from sightline.decisions import Policy, judge_run
from sightline.runs import Decision, Diagnosis, Run


def diagnose(run: Run, policy: Policy | None = None) -> Diagnosis:
    """Say what the losses of a run are doing.

    Parameters
    ----------
    run : Run
        From ``sightline.read`` or a recorder.
    policy : Policy, optional
        Thresholds; those of Sightline unless given.

    Returns
    -------
    Diagnosis
        The phase, how sure it is, the findings, the onset and the best step.
    """
    return judge_run(run, policy).diagnosis


def decide(run: Run, policy: Policy | None = None) -> Decision:
    """Say what to do with a run.

    Parameters
    ----------
    run : Run
        From ``sightline.read`` or a recorder.
    policy : Policy, optional
        Thresholds; those of Sightline unless given.

    Returns
    -------
    Decision
        Go on or stop, which step to keep, and why.
    """
    return judge_run(run, policy).decision
