"""RichDisplay: a fine-tune on a terminal, repainted in place while it goes on.

Nothing runs in the background: the page is painted from the calls of the training itself, at most four times a
second and so seldom that painting takes at most a hundredth of the time.
"""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from rich.cells import cell_len
from rich.text import Text

from sightline.decisions import Verdict
from sightline.diagnosis.context import portion
from sightline.runs import Phase, Run, Severity, perplexity
from sightline.terminal.chart import Marks, draw_chart, losses
from sightline.terminal.display import HarmlessDisplay, harmless
from sightline.terminal.layout import columns, fit, for_terminal, wrap
from sightline.terminal.pace import Pace
from sightline.terminal.page import verdict_page
from sightline.terminal.painting import Painter
from sightline.terminal.region import Region
from sightline.terminal.text import count_text, duration, glyphs_for, number_text, printable, short_number
from sightline.terminal.words import PHASE_STYLES, SEVERITY_WORDS, live_phase_line, phase_sentence, unit

SHORTEST_INTERVAL_S = 0.25
SHORTEST_AFTER_EVALUATION_S = 0.05
LONGEST_INTERVAL_S = 5.0
MOST_TIME_SHARE = 0.01
_WIDEST = 120
_TALLEST_PLOT = 14
_SHORTEST_PLOT = 4


class RichDisplay(HarmlessDisplay):
    """Shows progress, both losses on one chart and the verdict so far at the foot of a terminal.

    Parameters
    ----------
    stream : TextIO
        A terminal.
    color : bool, optional
        False for no colours; None asks NO_COLOR.
    clock : callable
        Returns seconds, never going back.
    """

    def __init__(
        self, stream: TextIO, *, color: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._clock = stream, clock
        self._glyphs = glyphs_for(getattr(stream, "encoding", None))
        self._painter = Painter(stream, color=color)
        self._region = Region(stream)
        self._pace: Pace | None = None
        self._name = ""
        self._run: Run | None = None
        self._verdict: Verdict | None = None
        self._metrics: dict[str, float] = {}
        self._rows: tuple[int, int] | None = None  # rows an evaluation has scored, of how many
        self._chart: list[Text] = []
        self._chart_for: tuple[int, int] | None = None
        self._due = float("inf")
        self._painted_at = float("inf")

    # -- what the training tells ---------------------------------------------------------------------------------

    @harmless
    def begin(self, *, run_name: str, max_steps: int, first_step: int, details: Sequence[tuple[str, str]]) -> None:
        """Print what is about to be done and open the live page below it."""
        self._name = printable(run_name, 80)
        self._pace = Pace(max_steps=max_steps, first_step=first_step, now=self._clock())
        width, _ = self._region.size()
        lines = [Text(f"Sightline: {self._name}", style="bold")]
        lines += columns(
            [((printable(what), "dim"), (printable(value), "")) for what, value in details],
            "ll",
            indent="  ",
            flexible=1,
            width=width - 1,
        )
        self._print(lines)
        self._region.open()
        atexit.register(self.close)
        self._paint()

    @harmless
    def stepped(self, step: int) -> None:
        """Move the progress bar when it is time to."""
        if self._pace is not None:
            self._pace.step = step
        if self._clock() >= self._due:
            self._paint()

    @harmless
    def logged(self, run: Run, step: int, metrics: Mapping[str, float]) -> None:
        """Take in new points."""
        self._run, self._chart_for = run, None
        self._metrics.update(metrics)
        if self._pace is not None:
            self._pace.step = max(step, self._pace.step)
            self._pace.logged(metrics, self._clock())
        if self._clock() >= self._due:
            self._paint()

    @harmless
    def evaluating(self, done: int, total: int) -> None:
        """Show how far the evaluation is."""
        self._rows = (done, total) if done < total else None
        if self._clock() >= self._due:
            self._paint()

    @harmless
    def evaluated(self, verdict: Verdict) -> None:
        """Show the new verdict."""
        self._run, self._verdict, self._rows, self._chart_for = verdict.run, verdict, None, None
        if self._clock() >= self._painted_at + SHORTEST_AFTER_EVALUATION_S:
            self._paint()

    @harmless
    def notice(self, text: str, severity: Severity) -> None:
        """Print a sentence above the live page."""
        word, style = SEVERITY_WORDS[severity]
        width, _ = self._region.size()
        lines = wrap(printable(text), width - 1, first=f"{word}: ", rest="  ")
        lines[0].stylize(style, 0, len(word) + 1)
        self._print(lines)

    @harmless
    def end(self, verdict: Verdict | None, lines: Sequence[str]) -> None:
        """Put the verdict's page in the place of the live one."""
        width, height = self._region.size()
        self._region.close(erase=True)
        self._due = float("inf")
        page: list[Text] = []
        if verdict is not None:
            page += verdict_page(
                verdict, width=width - 1, height=min(_TALLEST_PLOT, max(6, height - 20)), glyphs=self._glyphs
            )
            page.append(Text())
        for line in lines:
            page += wrap(printable(line), width - 1, first="→ ", rest="  ")
        self._print(page)

    def close(self) -> None:
        """Leave the last page standing and give sys.stdout and sys.stderr back."""
        self._due = float("inf")
        self._region.close()
        atexit.unregister(self.close)

    # -- the page ------------------------------------------------------------------------------------------------

    def _print(self, lines: Sequence[Text]) -> None:
        painted = self._painter.paint(for_terminal(lines, self._glyphs))
        if painted:
            self._region.above("\n".join(painted) + "\n")

    def _paint(self) -> None:
        """Paint the page and settle when it may be painted again."""
        if self._pace is None:
            return
        began = time.perf_counter()
        columns_, rows = self._region.size()
        lines = for_terminal(self._page(min(columns_ - 1, _WIDEST), rows - 1), self._glyphs)
        self._region.show(self._painter.paint(lines))
        cost = time.perf_counter() - began
        self._painted_at = self._clock()
        self._due = self._painted_at + min(LONGEST_INTERVAL_S, max(SHORTEST_INTERVAL_S, cost / MOST_TIME_SHARE))

    def _page(self, width: int, height: int) -> list[Text]:
        lines = [Text(), *self._progress(width), *self._facts(width), *self._phase(width)]
        room = height - len(lines) - 6  # legend, axis, its labels and the marks
        if room >= _SHORTEST_PLOT and width >= 40 and self._run is not None:
            lines += [Text(), *self._draw(width, min(room, _TALLEST_PLOT))]
        return lines[:height]

    def _progress(self, width: int) -> list[Text]:
        """Say how far the training is, as a bar and in words."""
        pace, now = self._pace, self._clock()
        assert pace is not None
        left = pace.left_s(now)
        planned = pace.max_steps > 0
        name = "step" if self._run is None else unit(self._run)
        words = [f"{name} {pace.step} of {pace.max_steps}" if planned else f"{name} {pace.step}"]
        if self._rows is not None:
            words.append(f"evaluating: {self._rows[0]} of {self._rows[1]} rows")
        if planned:
            words.append(f"{duration(left)} left" if left is not None else "time left not known yet")
        if pace.tokens_per_second is not None:
            words.append(f"{count_text(round(pace.tokens_per_second))} tokens/s")
        if not planned:
            return [Text(fit(" · ".join(words), width))]
        share = pace.share()
        size = max(8, min(30, width // 3))
        done = round(share * size)
        line = Text(self._glyphs.bar_done * done, style="green").append(
            self._glyphs.bar_left * (size - done), style="dim"
        )
        text = f" {portion(share)}  {words[0]}"
        for word in words[1:]:
            if size + cell_len(text) + 3 + len(word) <= width:
                text += f" · {word}"
        return [line.append(fit(text, width - size))]

    def _facts(self, width: int) -> list[Text]:
        """Return the newest numbers on one line."""
        run, metrics = self._run, self._metrics
        facts = []
        if run is not None and run.eval_loss is not None and len(run.eval_loss):
            value = float(run.eval_loss.values[-1])
            facts.append(f"validation loss {number_text(value)} (perplexity {number_text(perplexity(value))})")
        if run is not None and run.train_loss is not None and len(run.train_loss):
            facts.append(f"training loss {number_text(float(run.train_loss.values[-1]))}")
        if "learning_rate" in metrics:
            facts.append(f"learning rate {short_number(metrics['learning_rate'])}")
        return wrap(" · ".join(facts), width) if facts else []

    def _phase(self, width: int) -> list[Text]:
        """Say what can be said so far: the phase, and the best step."""
        verdict = self._verdict
        if verdict is None:
            return wrap("no evaluation yet", width, style="dim")
        best, phase = verdict.diagnosis.best, verdict.diagnosis.phase
        lines = [Text(fit(live_phase_line(verdict), width), style=f"bold {PHASE_STYLES[phase]}")]
        if phase not in (Phase.UNDECIDED, Phase.UNDERFITTING):
            lines += wrap(phase_sentence(verdict.diagnosis), width, style="dim")
        if best is not None:
            loss = number_text(best.eval_loss)
            lines.append(Text(fit(f"best so far: {unit(verdict.run)} {best.step}, validation loss {loss}", width)))
        return lines

    def _draw(self, width: int, height: int) -> list[Text]:
        """Draw both losses, or reuse the drawing when no point came in."""
        if self._chart_for != (width, height):
            run, verdict = self._run, self._verdict
            assert run is not None
            diagnosis = None if verdict is None else verdict.diagnosis
            best = None if diagnosis is None or diagnosis.best is None else diagnosis.best.step
            marks = Marks(best, None if diagnosis is None else diagnosis.onset)
            self._chart = draw_chart(
                losses(run.train_loss, run.eval_loss),
                width=width,
                height=height,
                marks=marks,
                glyphs=self._glyphs,
                x_name=unit(run),
            )
            self._chart_for = (width, height)
        return self._chart
