"""Sightline keeps a fine-tune in sight.

``read`` opens any training log, ``diagnose`` and ``decide`` say what became of it and what to do, ``record`` writes
down a loop of your own, ``watch`` and ``SightlineCallback`` follow a Hugging Face Trainer. After `import sightline` a
Trainer also takes ``report_to=["sightline"]``. Each name is imported when it is first used; only the Trainer's need
torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sightline.training.integration import register as _register

if TYPE_CHECKING:
    from sightline._public import decide, diagnose
    from sightline.decisions import Policy, Verdict, judge_run, verdict_as_json
    from sightline.errors import SightlineError
    from sightline.journal import record
    from sightline.runs import (
        Action,
        Best,
        Checkpoint,
        Curve,
        Decision,
        Diagnosis,
        Evaluation,
        ExampleLosses,
        Finding,
        Onset,
        Phase,
        Run,
        Severity,
        Status,
        perplexity,
    )
    from sightline.sources import read, read_runs
    from sightline.training.callback import SightlineCallback, watch

__version__ = "0.1.0"

__all__ = [
    "Action",
    "Best",
    "Checkpoint",
    "Curve",
    "Decision",
    "Diagnosis",
    "Evaluation",
    "ExampleLosses",
    "Finding",
    "Onset",
    "Phase",
    "Policy",
    "Run",
    "Severity",
    "SightlineCallback",
    "SightlineError",
    "Status",
    "Verdict",
    "decide",
    "diagnose",
    "judge_run",
    "perplexity",
    "read",
    "read_runs",
    "record",
    "verdict_as_json",
    "watch",
]

_HOMES = {
    "SightlineCallback": "sightline.training.callback",
    "watch": "sightline.training.callback",
    "read": "sightline.sources",
    "read_runs": "sightline.sources",
    "record": "sightline.journal",
    "diagnose": "sightline._public",
    "decide": "sightline._public",
    "judge_run": "sightline.decisions",
    "verdict_as_json": "sightline.decisions",
    "Policy": "sightline.decisions",
    "Verdict": "sightline.decisions",
    "SightlineError": "sightline.errors",
}
"""Where a public name lives; those not here are records, in sightline.runs."""

_register()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'sightline' has no attribute {name!r}")
    home = _HOMES.get(name, "sightline.runs")
    try:
        value = getattr(import_module(home), name)
    except ModuleNotFoundError as error:
        if home != "sightline.training.callback" or (error.name or "").startswith("sightline"):
            raise
        from sightline.errors import MissingExtra

        raise MissingExtra(f"sightline.{name}", error.name or "torch", "train") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
