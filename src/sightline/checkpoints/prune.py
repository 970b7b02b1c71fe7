"""plan_pruning() and carry_out(): which checkpoints can go, and how they go without a trace of harm.

Kept are the newest, the last that training can go on from, and the best; each is verified first, so that the one that
is kept is never the damaged one. Deleted is only what provably came from the Trainer; all else is left alone and named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sightline.checkpoints.listing import Listed, Listing, freed_bytes
from sightline.checkpoints.manifest import drop_files
from sightline.checkpoints.ownership import foreign_entries, why_foreign
from sightline.checkpoints.parts import CHECKPOINT_NAME, sizes_of
from sightline.checkpoints.removal import remove, set_aside
from sightline.checkpoints.verify import Verification, verify
from sightline.errors import CheckpointError

OPTIMIZER_KEPT_IN = 2
"""Checkpoints, the last ones, that keep their optimizer state when the others drop it."""
_OPTIMIZERS = ("optimizer.pt", "optimizer.bin")


@dataclass(frozen=True, slots=True)
class Pruning:
    """What pruning would do, or did."""

    listing: Listing
    kept: tuple[tuple[Listed, str], ...]
    """Checkpoints that stay, and why."""
    deleted: tuple[Listed, ...]
    dropped: tuple[tuple[Listed, tuple[str, ...]], ...]
    """Checkpoints that stay without their optimizer state, and the files of it."""
    left_alone: tuple[tuple[str, str], ...]
    """Names in the folder that look like checkpoints and are not touched, and why."""
    why_nothing: str | None = None
    """Why no checkpoint may be deleted at all; None when that is not so."""

    @property
    def frees_bytes(self) -> int:
        """Bytes the disk gets back."""
        dropped = sum(freed_bytes(listed.parts.path, names) for listed, names in self.dropped)
        return sum(listed.frees_bytes for listed in self.deleted) + dropped


@dataclass(slots=True)
class _Checked:
    """Verifications that are made once and only for what is to be relied on."""

    check: Callable[[Path], Verification]
    made: dict[int, Verification] = field(default_factory=dict)

    def __call__(self, listed: Listed) -> Verification:
        if listed.step not in self.made:
            self.made[listed.step] = self.check(listed.parts.path)
        return self.made[listed.step]


def plan_pruning(
    listing: Listing,
    *,
    top: int = 1,
    last: int | None = None,
    drop_optimizer: bool = False,
    check: Callable[[Path], Verification] = verify,
) -> Pruning:
    """Say what can go; nothing is deleted.

    Parameters
    ----------
    listing : Listing
        The checkpoints of a run.
    top : int
        How many of the best to keep, 1 or more.
    last : int, optional
        How many of the last to keep; 1 unless given. Without any validation loss only this says what may go.
    drop_optimizer : bool
        Drop the optimizer state of all but the last two.
    check : callable
        Verifies a folder; what is kept as best or last must be intact.

    Returns
    -------
    Pruning
    """
    checked = _Checked(check)
    why_nothing = None
    if listing.best is None and last is None:
        why_nothing = "no validation loss is known, so nothing tells the best from the rest; --last N keeps the last N"
    kept = dict(_to_keep(listing, top, 1 if last is None else last, checked))
    left_alone = dict(_not_checkpoints(listing.folder))
    deleted = []
    for listed in listing.checkpoints:
        if listed.step in kept or why_nothing is not None:
            continue
        reason = why_foreign(listed, listing.run) or _damaged(checked.made.get(listed.step))
        if reason is None:
            deleted.append(listed)
        else:
            left_alone[listed.parts.path.name] = reason
    stays = tuple((one, kept[one.step]) for one in listing.checkpoints if one.step in kept)
    dropped = tuple(_droppable(listing, {one.step for one in deleted}, checked)) if drop_optimizer else ()
    return Pruning(listing, stays, tuple(deleted), dropped, tuple(sorted(left_alone.items())), why_nothing)


def carry_out(pruning: Pruning) -> tuple[str, ...]:
    """Delete what a plan says, looking once more at each folder before it goes.

    Parameters
    ----------
    pruning : Pruning
        From `plan_pruning`.

    Returns
    -------
    tuple of str
        What could not be done, a sentence each; empty when all was done.
    """
    failed = []
    for listed in pruning.deleted:
        reason = why_foreign(listed, pruning.listing.run)  # it may have changed since the plan was made
        failed += [f"{listed.parts.path.name}: {reason}"] if reason else _deleted(listed.parts.path)
    for listed, names in pruning.dropped:
        try:
            drop_files(listed.parts.path, names)
        except CheckpointError as error:
            failed.append(str(error))
    return tuple(failed)


def _to_keep(listing: Listing, top: int, last: int, checked: _Checked) -> Iterator[tuple[int, str]]:
    """Yield the steps to keep and why; a later reason for a step replaces an earlier one."""
    newest = listing.checkpoints[-1]
    yield newest.step, "the newest"
    own_best = None if listing.state is None else listing.state.best_global_step
    if own_best is not None and any(listed.step == own_best for listed in listing.checkpoints):
        yield own_best, "what the Trainer calls best"
    intact = (
        listed
        for listed in reversed(listing.checkpoints)
        if (listed.parts.is_complete or listed.parts.is_weights_only) and checked(listed).intact
    )
    for _, listed in zip(range(max(1, last)), intact, strict=False):
        yield listed.step, "among the last"
    resumable = (one for one in reversed(listing.checkpoints) if one.parts.is_complete and checked(one).intact)
    if (to_resume := next(resumable, None)) is not None:
        yield to_resume.step, "the last to resume from"
    good = (listed for listed in _by_loss(listing) if checked(listed).intact)
    for rank, listed in zip(range(1, max(1, top) + 1), good, strict=False):
        yield listed.step, "the best" if rank == 1 else f"number {rank} by validation loss"


def _by_loss(listing: Listing) -> list[Listed]:
    """Return the checkpoints whose losses can be ranked, the best first."""
    exact_only = any(listed.is_exact for listed in listing.checkpoints)
    ranked = [
        (listed.eval_loss, listed.step, listed)
        for listed in listing.checkpoints
        if listed.eval_loss is not None and math.isfinite(listed.eval_loss) and (listed.is_exact or not exact_only)
    ]
    return [listed for _, _, listed in sorted(ranked, key=lambda entry: entry[:2])]


def _not_checkpoints(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield what is called checkpoint-something in the run's folder and is none, or only a link to one."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("quarantined-checkpoint-"):
            yield entry.name, "put away by a resume that could not trust it; look at it before it goes"
        if not entry.name.startswith("checkpoint"):
            continue
        if entry.is_symlink():
            yield entry.name, "a link, which is not followed"
        elif CHECKPOINT_NAME.fullmatch(entry.name) is None:
            yield entry.name, "not a name that the Trainer gives"


def _damaged(verification: Verification | None) -> str | None:
    """Say that a checkpoint was passed over as best or last because it is damaged: a person should look at it."""
    if verification is None or verification.intact:
        return None
    return f"damaged ({verification.problems[0]}); look at it before it goes"


def _droppable(listing: Listing, deleted: set[int], checked: _Checked) -> Iterator[tuple[Listed, tuple[str, ...]]]:
    """Yield the checkpoints that stay and need no optimizer: all but the last two that can be resumed from."""
    resumable = [listed for listed in listing.checkpoints if listed.parts.is_complete and checked(listed).intact]
    for listed in resumable[:-OPTIMIZER_KEPT_IN]:
        if listed.step not in deleted and why_foreign(listed, listing.run) is None:
            files = sizes_of(listed.parts.path)
            names = tuple(name for name in files if name in _OPTIMIZERS or name.startswith("optimizer_"))
            if names:
                yield listed, names


def _deleted(folder: Path) -> list[str]:
    """Delete a folder: it loses its name first, so that an interruption leaves no half of a checkpoint."""
    try:
        going = set_aside(folder)
        if foreign := foreign_entries(going):
            going.rename(folder)
            return [f"{folder.name}: {foreign[0]} appeared in it, so it stays"]
        remove(going)
    except (OSError, CheckpointError) as error:
        return [f"{folder.name}: not wholly deleted ({error})"]
    return []
