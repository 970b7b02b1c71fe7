"""Display: what a fine-tune tells whoever is looking, and which display suits an output."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, TextIO, TypeVar, cast

from sightline.decisions import Verdict
from sightline.runs import Run, Severity
from sightline.terminal.text import is_tty

P = ParamSpec("P")
D = TypeVar("D", bound="HarmlessDisplay")


class Display(Protocol):
    """Hears of a fine-tune as it happens; must not raise and must not be slow."""

    def begin(self, *, run_name: str, max_steps: int, first_step: int, details: Sequence[tuple[str, str]]) -> None:
        """Training is about to start at ``first_step`` (0 unless resumed) and to go to ``max_steps`` (0 if not known).

        ``details`` are (what, value) pairs.
        """

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


class HarmlessDisplay:
    """A display whose failures stay its own: the first is told in one line on stderr, then it is silent."""

    _failed = False

    def close(self) -> None:
        """Give the terminal back as it was; harmless when called twice or never."""

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        try:
            self.close()
            first_line = (str(error).splitlines() or [""])[0]
            print(
                f"sightline: the display failed and is silent now ({type(error).__name__}: {first_line})",
                file=sys.__stderr__,
            )
        except Exception:  # nowhere left to say it
            return


def harmless(method: Callable[Concatenate[D, P], None]) -> Callable[Concatenate[D, P], None]:
    """Keep whatever fails in a display's method out of the training that calls it."""

    @functools.wraps(method)
    def guarded(self: D, *args: P.args, **kwargs: P.kwargs) -> None:
        if self._failed:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._give_up(error)

    return cast(Callable[Concatenate[D, P], None], guarded)


def choose_display(
    stream: TextIO | None = None, *, json: bool = False, color: bool | None = None, **options: Any
) -> Display:
    """Return the display that suits an output.

    Parameters
    ----------
    stream : TextIO, optional
        Where it shows; standard output unless told.
    json : bool
        True for one JSON object a line.
    color : bool, optional
        False for no colours; None asks the terminal and NO_COLOR.
    **options
        Passed on to the display.

    Returns
    -------
    Display
        JSON lines when asked, a live page on a terminal, plain lines anywhere else.
    """
    stream = sys.stdout if stream is None else stream
    if json:
        from sightline.terminal.json_display import JsonDisplay

        return JsonDisplay(stream, **options)
    if is_terminal(stream):
        from sightline.terminal.live import RichDisplay

        return RichDisplay(stream, color=color, **options)
    from sightline.terminal.plain_display import PlainDisplay

    return PlainDisplay(stream, **options)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that can move its cursor."""
    if not is_tty(stream) or os.environ.get("TERM", "") in ("dumb", "unknown"):
        return False
    return os.name != "nt" or bool(os.environ.get("WT_SESSION") or os.environ.get("ANSICON"))
