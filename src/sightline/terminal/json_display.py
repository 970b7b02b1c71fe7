"""JsonDisplay: a fine-tune as one JSON object a line; docs/cli.md lists the events."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from sightline.decisions import Verdict, verdict_as_json
from sightline.runs import Run, Severity
from sightline.terminal.display import HarmlessDisplay, harmless
from sightline.terminal.strict_json import strict_json

EVENTS_VERSION = 1


class JsonDisplay(HarmlessDisplay):
    """Writes one JSON object a line for every event; single steps and evaluation progress are left out."""

    def __init__(self, stream: TextIO, *, clock: Callable[[], float] = time.time) -> None:
        self._stream, self._clock = stream, clock

    @harmless
    def begin(self, *, run_name: str, max_steps: int, first_step: int, details: Sequence[tuple[str, str]]) -> None:
        """Write ``begin``."""
        self._event(
            "begin",
            run_name=run_name,
            max_steps=max_steps or None,
            first_step=first_step,
            details=[{"what": what, "value": value} for what, value in details],
        )

    def stepped(self, step: int) -> None:
        """Write nothing."""

    def evaluating(self, done: int, total: int) -> None:
        """Write nothing."""

    @harmless
    def logged(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Write ``log``."""
        self._event("log", step=step, metrics=dict(metrics))

    @harmless
    def evaluated(self, verdict: Verdict) -> None:
        """Write ``evaluation``: the step and the verdict as it stands."""
        curve = verdict.run.eval_loss
        step = int(curve.steps[-1]) if curve is not None and len(curve) else verdict.run.last_step
        self._event("evaluation", step=step, verdict=verdict_as_json(verdict))

    @harmless
    def notice(self, text: str, severity: Severity) -> None:
        """Write ``notice``."""
        self._event("notice", severity=severity.value, text=text)

    @harmless
    def end(self, verdict: Verdict | None, lines: Sequence[str]) -> None:
        """Write ``end``: the last verdict, and where things are."""
        self._event("end", verdict=None if verdict is None else verdict_as_json(verdict), lines=list(lines))

    def _event(self, kind: str, **fields: Any) -> None:
        record = {"sightline": EVENTS_VERSION, "event": kind, "time": round(self._clock(), 3), **fields}
        self._stream.write(strict_json(record, encoding=self._stream.encoding) + "\n")
        self._stream.flush()
