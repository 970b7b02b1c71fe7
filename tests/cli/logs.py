"""Trainer states as the Trainer writes them, and the command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

EVALS = (2.61, 2.24, 1.98, 1.83, 1.75, 1.72, 1.74, 1.79, 1.86, 1.93, 2.01, 2.08, 2.16, 2.24, 2.31)
FALLING = tuple(1.5 + 1.2 * 0.7**i for i in range(1, 16))


def trainer_state(
    path: Path,
    evals: tuple[float, ...] = EVALS,
    losses: tuple[float, ...] | None = None,
    max_steps: int | None = None,
) -> Path:
    """Write a trainer_state.json: an evaluation every 100 steps, a training loss every 50."""
    losses = losses or tuple(2.6 * 0.94**i for i in range(1, 2 * len(evals) + 1))
    history: list[dict[str, float]] = []
    for i, loss in enumerate(losses, start=1):
        history.append({"step": 50 * i, "epoch": i / 20, "loss": loss, "learning_rate": 1e-4, "grad_norm": 1.0})
        if i % 2 == 0:
            history.append({"step": 50 * i, "epoch": i / 20, "eval_loss": evals[i // 2 - 1]})
    state = {
        "log_history": history,
        "global_step": 50 * len(losses),
        "max_steps": max_steps or 50 * len(losses),
        "epoch": 1.0,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(state), encoding="utf-8")
    return path


def sightline(*words: object, cwd: Path | None = None, **options) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own, as a user does."""
    env = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "PYTHONIOENCODING")}
    env |= options.pop("env", {})
    command = [sys.executable, "-m", "sightline", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", cwd=cwd, env=env, timeout=60, **options
    )
