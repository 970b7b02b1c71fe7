"""harmless(): nothing that goes wrong in watching may reach the training that is watched."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Event = TypeVar("Event", bound=Callable[..., Any])


def harmless(event: Event) -> Event:
    """Wrap a method so that an exception inside it is reported once for its object and never raised.

    KeyboardInterrupt and SystemExit pass: they are the user's wish, not a fault. The object may carry a set
    ``_reported`` of messages already given.
    """

    @functools.wraps(event)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return event(self, *args, **kwargs)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # polars panics with a BaseException of its own
            report_once(self, f"{event.__name__}: {type(error).__name__}: {error}")
            return None

    return guarded  # type: ignore[return-value]


def report_once(owner: Any, problem: str) -> None:
    """Warn of a problem unless ``owner`` has warned of the same one before."""
    reported: set[str] = owner.__dict__.setdefault("_reported", set())
    if problem in reported or len(reported) >= 20:
        return
    reported.add(problem)
    try:
        warnings.warn(f"Sightline could not watch this step, training goes on: {problem}", RuntimeWarning, stacklevel=3)
    except RuntimeWarning:  # warnings are errors here: still not the trainer's trouble
        return
