"""Where a gold set says otherwise than the loss, the decision follows the gold set."""

from __future__ import annotations

from dataclasses import replace

from sightline.decisions import judge_run, verdict_as_json
from tests.terminal import verdicts


def test_the_gold_score_decides_where_it_disagrees_with_the_loss():
    """The step to keep, why, and the answer in brief."""
    run = verdicts.judged().run
    verdict = judge_run(run)
    assert verdict.diagnosis.best.step == 600
    assert (verdict.decision.keep_step, verdict.decision.keep_checkpoint) == (1500, "checkpoint-1500")
    assert "the gold score decides" in verdict.decision.why
    told = verdict_as_json(verdict)["gold"]
    assert (told["answer"], told["checkpoint"], told["tuned"], told["forgot"]) == (
        "better",
        "checkpoint-1500",
        0.4,
        True,
    )


def test_the_loss_decides_where_the_gold_set_agrees_or_is_silent():
    """And a live run has no judgement yet."""
    run = verdicts.judged().run
    (judgement,) = run.judgements
    agrees = replace(judgement, choice=replace(judgement.choice, checkpoint="checkpoint-600", step=600))
    for judgements in ((), (agrees,), (replace(judgement, choice=None),)):
        assert judge_run(replace(run, judgements=judgements)).decision.keep_step == 600
    assert judge_run(run.until(1500)).decision.keep_step == 600
    assert verdict_as_json(judge_run(run.until(1500)))["gold"] is None
