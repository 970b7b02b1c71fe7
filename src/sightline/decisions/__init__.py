"""From findings to a decision: pure functions, no I/O, no clock."""

from sightline.decisions.decide import decide, gold_choice
from sightline.decisions.policy import Policy
from sightline.decisions.replay import Moment, Replay, replay, replay_as_json
from sightline.decisions.verdict import Verdict, judge_run, verdict_as_json

__all__ = [
    "Moment",
    "Policy",
    "Replay",
    "Verdict",
    "decide",
    "gold_choice",
    "judge_run",
    "replay",
    "replay_as_json",
    "verdict_as_json",
]
