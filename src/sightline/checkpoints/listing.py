"""list_checkpoints(): every checkpoint of a run with what belongs to it, from headers and the run's own history."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sightline.checkpoints.best import BestSaved, best_saved
from sightline.checkpoints.discover import find_checkpoints
from sightline.checkpoints.manifest import MANIFEST
from sightline.checkpoints.parts import ADAPTER_CONFIG, CHECKPOINT_NAME, Parts, sizes_of
from sightline.checkpoints.small_json import read_object
from sightline.checkpoints.state import StateBrief, read_state
from sightline.errors import CheckpointError
from sightline.runs import Curve, Run
from sightline.sources import read_runs
from sightline.sources.files import is_regular

_DEPTH = 3
_FILES = 20_000


@dataclass(frozen=True, slots=True)
class Base:
    """The model an adapter belongs on."""

    name: str
    """``base_model_name_or_path`` of the adapter's own configuration."""
    revision: str | None
    is_same: bool | None
    """Whether it is the model that the run trained on; None where nothing else names one."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One checkpoint with what is known of it."""

    parts: Parts
    epoch: float | None
    loss: float | None
    """Training loss logged at its step."""
    eval_loss: float | None
    """Validation loss recorded at its step."""
    is_exact: bool
    """Whether the validation loss is the exact token mean, not the Trainer's mean of batch means."""
    base: Base | None
    """None for a whole model."""
    has_manifest: bool
    frees_bytes: int
    """Bytes the disk gets back when it is deleted; files with another name elsewhere free nothing."""

    @property
    def step(self) -> int:
        """``global_step`` by the folder's name."""
        return self.parts.step


@dataclass(frozen=True, slots=True)
class Listing:
    """All checkpoints of one run."""

    folder: Path
    checkpoints: tuple[Listed, ...]
    """By ascending step."""
    best: BestSaved | None
    run: Run | None
    """Its history as far as any log beside the checkpoints tells."""
    state: StateBrief | None
    """The newest trainer state that can be read."""

    @property
    def last(self) -> Listed | None:
        """The newest checkpoint that training can go on from."""
        return next((listed for listed in reversed(self.checkpoints) if listed.parts.is_complete), None)

    @property
    def size_bytes(self) -> int:
        """Bytes of all checkpoints."""
        return sum(listed.parts.size_bytes for listed in self.checkpoints)

    def loss_of_deleting(self, listed: Listed) -> str:
        """Say in words what is lost with a checkpoint; ``""`` when nothing is."""
        lost = []
        if self.best is not None and listed.step == self.best.step:
            lost.append(self._next_best())
        if listed is self.last:
            earlier = [other.step for other in self.checkpoints if other.parts.is_complete and other.step < listed.step]
            lost.append(f"{listed.step - earlier[-1]} steps" if earlier else "the only one to resume from")
        return ", ".join(lost)

    def _next_best(self) -> str:
        others = {o.step: o.eval_loss for o in self.checkpoints if self.best is not None and o.step != self.best.step}
        following = best_saved(others)
        if following is None or self.best is None:
            return "the only one evaluated"
        return f"{following.eval_loss - self.best.eval_loss:.3g} nats"


def list_checkpoints(folder: Path) -> Listing:
    """List the checkpoints of a run; headers only, nothing is unpickled and no link is followed.

    Parameters
    ----------
    folder : Path
        Output folder of the Trainer, whether Sightline ever saw it or not.

    Returns
    -------
    Listing

    Raises
    ------
    CheckpointError
        If the folder is none, or holds no checkpoints.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give the output folder of a run, which holds checkpoint-N")
    found = find_checkpoints(folder)
    if not found:
        raise CheckpointError(f"{folder}: holds no checkpoint (no folder named checkpoint-N){_elsewhere(folder)}")
    run = _run_of(folder)
    states = {parts.step: _state_of(parts) for parts in found}
    bases = _bases(found, run)
    listed = tuple(_listed(parts, states[parts.step], run, bases.get(parts.step)) for parts in found)
    newest = next((states[parts.step] for parts in reversed(found) if states[parts.step] is not None), None)
    return Listing(folder, listed, best_saved(_comparable(listed), run), run, newest)


def _elsewhere(folder: Path) -> str:
    """Name the folders nearby that do hold checkpoints."""
    if CHECKPOINT_NAME.fullmatch(folder.absolute().name):
        return f"; it is one itself, listed with {folder.absolute().parent}"
    try:
        below = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink())[:1000]
        holding = [entry.name for entry in below if find_checkpoints(entry)]
    except OSError:
        return ""
    return f"; there are some in {', '.join(holding[:5])}" if holding else ""


def _run_of(folder: Path) -> Run | None:
    """Read the history of the run: its journal before any other log, then the log with most points."""
    runs, _ = read_runs([folder], max_depth=_DEPTH, max_files=_FILES)
    return max(runs, key=lambda r: (r.format == "journal", sum(map(len, r.curves.values()))), default=None)


def _state_of(parts: Parts) -> StateBrief | None:
    try:
        return read_state(parts.path)
    except CheckpointError:
        return None


def _listed(parts: Parts, state: StateBrief | None, run: Run | None, base: Base | None) -> Listed:
    own: Mapping[str, float] = {} if state is None or state.global_step != parts.step else state.metrics
    exact = next((e for e in run.evaluations if e.step == parts.step), None) if run is not None else None
    told = _told(run, parts.step)
    eval_name = "eval_loss" if run is None else run.eval_metric
    eval_loss = exact.eval_loss if exact is not None else own.get(eval_name, told.get(eval_name))
    return Listed(
        parts=parts,
        epoch=None if state is None else state.epoch,
        loss=own.get("loss", told.get("loss")),
        eval_loss=eval_loss,
        is_exact=exact is not None,
        base=base,
        has_manifest=is_regular(parts.path / MANIFEST),
        frees_bytes=freed_bytes(parts.path),
    )


def _told(run: Run | None, step: int) -> dict[str, float]:
    """Return what the run's curves have at a step."""
    if run is None or run.step_unit != "step":
        return {}
    curves = {"loss": run.train_loss, run.eval_metric: run.eval_loss}
    return {name: value for name, curve in curves.items() if (value := _at(curve, step)) is not None}


def _at(curve: Curve | None, step: int) -> float | None:
    if curve is None:
        return None
    found = curve.values[curve.steps == step]
    return float(found[-1]) if found.size else None


def _comparable(listed: Sequence[Listed]) -> dict[int, float | None]:
    """Return the losses that may be ranked: exact ones and the Trainer's own are not on one scale."""
    exact_only = any(one.is_exact for one in listed)
    return {one.step: one.eval_loss if one.is_exact or not exact_only else None for one in listed}


def freed_bytes(folder: Path, names: Sequence[str] | None = None) -> int:
    """Count the bytes that deleting a checkpoint, or some of its files, gives back to the disk."""
    freed = 0
    try:
        for name in sizes_of(folder) if names is None else names:
            status = (folder / name).lstat()
            freed += status.st_size if status.st_nlink == 1 else 0
    except (OSError, CheckpointError):
        return freed
    return freed


def _bases(found: Sequence[Parts], run: Run | None) -> dict[int, Base]:
    """Return the base that each adapter names, and whether it is the one the run trained on."""
    named = {parts.step: told for parts in found if parts.is_adapter and (told := _named_base(parts.path)) is not None}
    of_run = None if run is None else run.config.get("model_name_or_path")
    first = next(iter(named.values()), None)
    bases = {}
    for step, (name, revision) in named.items():
        if isinstance(of_run, str):
            same: bool | None = _same_model(name, of_run)
        else:
            same = (name, revision) == first if len(named) > 1 else None
        bases[step] = Base(name, revision, same)
    return bases


def _named_base(folder: Path) -> tuple[str, str | None] | None:
    try:
        config: Mapping[str, Any] = read_object(folder / ADAPTER_CONFIG)
    except CheckpointError:
        return None
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    return (name, revision if isinstance(revision, str) else None) if isinstance(name, str) and name else None


def _same_model(one: str, other: str) -> bool:
    """Whether two names mean one model: a folder may be written with a slash at its end."""
    return one == other or os.path.normpath(one) == os.path.normpath(other)
