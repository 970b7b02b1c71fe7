"""Display: what a fine-tune tells whoever is looking; implemented by the terminal and by tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from sightline.decisions import Verdict
from sightline.runs import Run, Severity


class Display(Protocol):
    """Hears of a fine-tune as it happens, on rank 0 only; must not raise and must not be slow."""

    def begin(self, *, run_name: str, max_steps: int, first_step: int, details: Sequence[tuple[str, str]]) -> None:
        """Training is about to start at ``first_step`` (0 unless resumed); ``details`` are (what, value) pairs."""

    def stepped(self, step: int) -> None:
        """One optimizer step is done."""

    def logged(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """The Trainer logged metrics at ``step``; ``run`` is the run so far."""

    def evaluating(self, done: int, total: int) -> None:
        """An evaluation has scored ``done`` of ``total`` rows."""

    def evaluated(self, verdict: Verdict) -> None:
        """An evaluation is done; ``verdict`` is what can be said now."""

    def notice(self, text: str, severity: Severity) -> None:
        """Something a person should know."""

    def end(self, verdict: Verdict | None, lines: Sequence[str]) -> None:
        """Training is over; ``lines`` say where things are and what to do next."""


class Silent:
    """A display that shows nothing."""

    def begin(self, *, run_name: str, max_steps: int, first_step: int, details: Sequence[tuple[str, str]]) -> None:
        """Show nothing."""

    def stepped(self, step: int) -> None:
        """Show nothing."""

    def logged(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Show nothing."""

    def evaluating(self, done: int, total: int) -> None:
        """Show nothing."""

    def evaluated(self, verdict: Verdict) -> None:
        """Show nothing."""

    def notice(self, text: str, severity: Severity) -> None:
        """Show nothing."""

    def end(self, verdict: Verdict | None, lines: Sequence[str]) -> None:
        """Show nothing."""
