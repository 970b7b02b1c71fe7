"""Whether the disk will hold the checkpoints still to come."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import pairwise

from sightline.checkpoints.listing import Listing
from sightline.runs import Status


@dataclass(frozen=True, slots=True)
class DiskForecast:
    """What the rest of a run will want of the disk, if nothing is deleted."""

    each_bytes: int
    """Size of one checkpoint, the newest complete one's."""
    saves_to_come: int
    free_bytes: int
    full_at_step: int | None
    """Step of the first save for which there is no room; None when all of them fit."""


def forecast_disk(listing: Listing, freed_bytes: int = 0) -> DiskForecast | None:
    """Forecast the disk for the rest of a run.

    Parameters
    ----------
    listing : Listing
        Its checkpoints so far.
    freed_bytes : int
        Bytes that a pruning will give back.

    Returns
    -------
    DiskForecast or None
        None when the run has ended, or nothing tells how long it goes on and how often it saves.
    """
    state, last = listing.state, listing.last
    ended = listing.run is not None and listing.run.status in (Status.FINISHED, Status.STOPPED)
    if state is None or last is None or ended or not state.max_steps or state.global_step is None:
        return None
    every = _save_steps(listing)
    if every is None or state.max_steps <= state.global_step:
        return None
    to_come = list(range(state.global_step + every, state.max_steps + 1, every))
    if not to_come or to_come[-1] != state.max_steps:
        to_come.append(state.max_steps)  # the Trainer saves its last step whatever save_steps says
    try:
        free = shutil.disk_usage(listing.folder).free + freed_bytes
    except OSError:
        return None
    each = last.parts.size_bytes
    room = free // each if each else len(to_come)
    return DiskForecast(each, len(to_come), free, to_come[room] if room < len(to_come) else None)


def _save_steps(listing: Listing) -> int | None:
    """Return how far saves are apart: as the state says where the steps agree, else as the last two are."""
    steps = [listed.step for listed in listing.checkpoints]
    told = None if listing.state is None else listing.state.save_steps
    if told and told > 0 and all(step % told == 0 for step in steps):
        return told
    return min((later - step for step, later in pairwise(steps) if later > step), default=None)
