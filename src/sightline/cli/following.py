"""`sightline read --follow`: a log that grows, told as it is written."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from sightline.cli.exits import AGAINST, FINE
from sightline.decisions import Verdict, judge_run
from sightline.errors import SourceError, UsageError
from sightline.runs import Curve, Phase, Run, Severity, Status
from sightline.sources.follow import Follower, Growth, liveliest
from sightline.sources.hub import names_a_model
from sightline.terminal.display import Display, choose_display

LOOK_EVERY_S = 0.25
SELDOM_S = 0.75
MOST_TIME_SHARE = 0.2
"""Where looking takes more than this share of the time it is done less often, up to every SELDOM_S seconds."""
QUIET_S = 10.0
"""A log that says its run has ended, and has not grown for so long, is not followed any more."""
_ENDED = (Status.FINISHED, Status.STOPPED, Status.FAILED)


def follow(
    path: Path, *, as_json: bool, against: frozenset[Phase], eval_metric: str | None = None, no_color: bool = False
) -> int:
    """Tell the points of a growing log as they are written, until the log says that its run has ended.

    Parameters
    ----------
    path : Path
        A log, a run folder, or a folder in which the run written last is followed; it need not exist yet.
    as_json : bool
        Print one JSON object a line.
    against : frozenset of Phase
        Phases that give exit code 1.
    eval_metric : str, optional
        Curve to judge as validation loss.
    no_color : bool
        Print no escape sequences.

    Returns
    -------
    int
        The exit code of the last verdict.

    Raises
    ------
    SourceError
        If the log cannot be opened.
    UsageError
        If it has no curve called ``eval_metric``, or is no path of this machine.
    KeyboardInterrupt
        If the user ends it; the verdict has been told by then.
    """
    if not path.exists() and names_a_model(path) is not None and ":" in str(path):
        raise UsageError(f"{path}: a model of the hub does not grow; read it without --follow")
    told = Telling(choose_display(json=as_json, color=False if no_color else None), every_point=as_json)
    follower = _follower(path, eval_metric)
    grown_at = time.monotonic()
    try:
        while True:
            began = time.monotonic()
            growth = _look(follower)
            told.tell(growth, path)
            now = time.monotonic()
            if growth:
                grown_at = now
            elif growth.run is None:
                follower = _follower(path, eval_metric)  # what appears in a folder may lie deeper
            elif growth.run.status in _ENDED and now - grown_at > QUIET_S:
                break
            time.sleep(min(SELDOM_S, max(LOOK_EVERY_S, (now - began) / MOST_TIME_SHARE)))
    except KeyboardInterrupt:
        told.end(follower.finish(), path)
        raise
    verdict = told.end(follower.finish(), path)
    return AGAINST if verdict is not None and verdict.diagnosis.phase in against else FINE


class Telling:
    """Tells a display what each look at a log brought.

    Parameters
    ----------
    display : Display
    every_point : bool
        Whether points that were there before the first look are told one by one too.
    """

    def __init__(self, display: Display, *, every_point: bool) -> None:
        self._display, self._every_point = display, every_point
        self._run: Run | None = None
        self._waits = False

    def tell(self, growth: Growth, path: Path) -> None:
        """Tell new points, step by step, and the verdict if an evaluation is among them."""
        run = growth.run
        if run is None:
            if not self._waits:
                what = "no points in it yet" if path.exists() else "not there yet"
                self._display.notice(f"{path}: {what}; waiting", Severity.INFO)
            self._waits = True
            return
        if not growth:
            return
        if growth.begun:
            self._display.begin(
                run_name=run.name,
                max_steps=run.max_steps or 0,
                first_step=0 if self._every_point else run.last_step or 0,  # the pace is that of what is to come
                details=[("log", str(run.path)), ("format", run.format)],
            )
        self._run = run
        rows = _by_step(growth.new)
        if growth.begun and not self._every_point:
            rows = rows[-1:]
        for step, metrics in rows:
            self._display.logged(run.until(step), step, metrics)
        if run.eval_metric in growth.new:
            self._display.evaluated(judge_run(run))

    def end(self, growth: Growth, path: Path) -> Verdict | None:
        """Tell what the last look brought and the verdict of the run, and return it; None if there was none."""
        self.tell(growth, path)
        verdict = None if self._run is None else judge_run(self._run)
        self._display.end(verdict, [])
        return verdict


def _follower(path: Path, eval_metric: str | None) -> Follower:
    return Follower(liveliest(path) if path.is_dir() else path, eval_metric=eval_metric)


def _look(follower: Follower) -> Growth:
    """Look at a log; one that was read before and cannot be opened for the moment has not grown."""
    try:
        return follower.poll()
    except SourceError:
        if follower.run is None:
            raise
        return Growth(follower.run)


def _by_step(new: Mapping[str, Curve]) -> list[tuple[int, dict[str, float]]]:
    """Return points by ascending step."""
    rows: dict[int, dict[str, float]] = {}
    for name, curve in new.items():
        for step, value in zip(curve.steps.tolist(), curve.values.tolist(), strict=True):
            rows.setdefault(step, {})[name] = value
    return sorted(rows.items())
