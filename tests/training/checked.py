"""Runs to be checked before their first step, and what the checks find."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sightline.runs import Finding
from sightline.training.checks import KINDS, CheckContext, run_checks

from .synthetic import prepared


def found(context_or_folder, records=None, **keys) -> dict[str, Finding]:
    """Run every check on a run and return its findings by kind."""
    context = context_or_folder
    if isinstance(context, Path):
        context = CheckContext.of(prepared(context, records, **keys))
    findings = run_checks(context)
    for finding in findings:
        assert finding.kind in KINDS
        assert "\n" not in finding.message
        assert finding.kind != "check_failed", finding.message
    return {finding.kind: finding for finding in findings}


def sound(folder: Path, **keys) -> CheckContext:
    """Return a run nothing is wrong with."""
    keys = {"eval_records": distinct(400, 1), "use_peft": True, "gold_records": distinct(20, 2)} | keys
    return CheckContext.of(prepared(folder, distinct(300, 0), **keys))


def distinct(n: int, seed: int) -> list[dict[str, str]]:
    """Return rows whose prompts share no wording."""
    rng = np.random.default_rng(seed)
    words = [f"{'bcdfghjklmnpqrstvwz'[i % 19]}{'aeiou'[i % 5]}{i}" for i in range(4000)]
    return [
        {"prompt": " ".join(rng.choice(words, 8)) + "?\n", "completion": " ".join(rng.choice(words, 3))}
        for _ in range(n)
    ]
