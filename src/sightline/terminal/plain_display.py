"""PlainDisplay: a fine-tune as plain lines, for logs, pipes and batch systems."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from rich.text import Text

from sightline.decisions import Verdict
from sightline.diagnosis.context import portion
from sightline.runs import Run, Severity, perplexity
from sightline.terminal.display import HarmlessDisplay, harmless
from sightline.terminal.layout import for_terminal
from sightline.terminal.pace import Pace
from sightline.terminal.page import verdict_page
from sightline.terminal.text import count_text, duration, glyphs_for, number_text, printable, short_number
from sightline.terminal.words import SEVERITY_WORDS, live_phase_line, unit

SECONDS_BETWEEN_LOGS = 10.0
_WIDTH = 100


class PlainDisplay(HarmlessDisplay):
    """Prints a line for every evaluation, and one for a log now and then.

    Parameters
    ----------
    stream : TextIO
        Where to print.
    seconds_between_logs : float
        A log is left out when the line before it is younger.
    clock : callable
        Returns seconds, never going back.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        seconds_between_logs: float = SECONDS_BETWEEN_LOGS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._clock, self._between = stream, clock, seconds_between_logs
        self._glyphs = glyphs_for(getattr(stream, "encoding", None))
        self._pace = Pace(max_steps=0, first_step=0, now=clock())
        self._due = float("-inf")

    @harmless
    def begin(self, *, run_name: str, max_steps: int, first_step: int, details: Sequence[tuple[str, str]]) -> None:
        """Print what is about to be done."""
        self._pace = Pace(max_steps=max_steps, first_step=first_step, now=self._clock())
        begun = f", from step {first_step}" if first_step else ""
        length = f", {max_steps} steps" if max_steps > 0 else ""
        lines = [f"Sightline: {printable(run_name)}{length}{begun}"]
        lines += [f"  {printable(what)}: {printable(value)}" for what, value in details]
        self._print(lines)

    @harmless
    def stepped(self, step: int) -> None:
        """Remember the step."""
        self._pace.step = step

    def evaluating(self, done: int, total: int) -> None:
        """Print nothing: the evaluation's own line follows."""

    @harmless
    def logged(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Print the newest numbers, if the last line is old enough."""
        now = self._clock()
        self._pace.step = max(step, self._pace.step)
        self._pace.logged(metrics, now)
        if now < self._due:
            return
        self._due = now + self._between
        facts = [self._place(step, run)]
        if run.train_loss is not None and len(run.train_loss):
            facts.append(f"training loss {number_text(float(run.train_loss.values[-1]))}")
        if "learning_rate" in metrics:
            facts.append(f"learning rate {short_number(metrics['learning_rate'])}")
        if self._pace.tokens_per_second is not None:
            facts.append(f"{count_text(round(self._pace.tokens_per_second))} tokens/s")
        left = self._pace.left_s(now)
        if left is not None:
            facts.append(f"{duration(left)} left")
        self._print([" | ".join(facts)])

    @harmless
    def evaluated(self, verdict: Verdict) -> None:
        """Print what the evaluation says."""
        curve, best = verdict.run.eval_loss, verdict.diagnosis.best
        if curve is None or not len(curve):
            return
        step, value = int(curve.steps[-1]), float(curve.values[-1])
        facts = [
            self._place(step, verdict.run),
            f"validation loss {number_text(value)} (perplexity {number_text(perplexity(value))})",
        ]
        if best is not None:
            facts.append(
                "the best so far"
                if best.step == step
                else f"best: {unit(verdict.run)} {best.step} ({number_text(best.eval_loss)})"
            )
        facts.append(live_phase_line(verdict, short=True))
        self._print([" | ".join(facts)])

    @harmless
    def notice(self, text: str, severity: Severity) -> None:
        """Print a sentence."""
        self._print([f"{SEVERITY_WORDS[severity][0]}: {printable(text)}"])

    @harmless
    def end(self, verdict: Verdict | None, lines: Sequence[str]) -> None:
        """Print the verdict's page and where things are."""
        page = [] if verdict is None else verdict_page(verdict, width=_WIDTH, glyphs=self._glyphs)
        self._print(["", *(line.plain for line in page), "", *(f"→ {printable(line)}" for line in lines)])

    def _place(self, step: int, run: Run) -> str:
        if self._pace.max_steps <= 0:
            return f"{unit(run)} {step}"
        return f"{unit(run)} {step} of {self._pace.max_steps} ({portion(min(1.0, step / self._pace.max_steps))})"

    def _print(self, lines: Sequence[str]) -> None:
        shown = for_terminal([Text(line) for line in lines], self._glyphs)
        self._stream.write("".join(line.plain + "\n" for line in shown))
        self._stream.flush()
