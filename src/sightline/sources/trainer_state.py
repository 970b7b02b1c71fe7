"""The Trainer's ``trainer_state.json``: a single file, a ``checkpoint-N`` folder, or a whole output folder.

The Trainer writes its complete ``log_history`` into every checkpoint and, on a resume, rolls it back to the
checkpoint it starts from. So the newest state of an output folder tells the run; older ones only add what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import MalformedLog, SourceError
from sightline.runs import Checkpoint, Run, Segment, Status
from sightline.runs.names import judged_metrics, not_a_loss
from sightline.sources.files import as_utf8, head, is_folder, is_regular, read_whole
from sightline.sources.json_blocks import parse_apart
from sightline.sources.json_text import collector_paused, parse, parse_start
from sightline.sources.numbers import as_step
from sightline.sources.trainer_history import History

NAME = "trainer_state"
STATE_FILE = "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,15})")
_MTIME_DOUBT_NS = 2 * 10**9  # states written within 2 s of each other are not told apart by their clock
_CONFIG_KEYS = (
    "best_global_step",
    "best_metric",
    "best_model_checkpoint",
    "eval_steps",
    "logging_steps",
    "max_steps",
    "num_input_tokens_seen",
    "num_train_epochs",
    "save_steps",
    "total_flos",
    "train_batch_size",
    "trial_name",
    "trial_params",
)


@dataclass(slots=True)
class _State:
    """One parsed trainer_state.json."""

    path: Path
    fields: dict[str, Any]
    history: History
    damage: list[str] = field(default_factory=list)

    @property
    def global_step(self) -> int:
        return as_step(self.fields.get("global_step")) or 0

    @property
    def last_step(self) -> int:
        return max(self.global_step, int(self.history.steps[-1]) if len(self.history) else 0)


def recognises(path: Path) -> bool:
    """Return whether ``path`` is a Trainer's state, or a folder that holds one or checkpoints with one."""
    if is_folder(path):
        return is_regular(path / STATE_FILE) or any(
            is_regular(folder / STATE_FILE) for _, folder in checkpoint_folders(path)
        )
    start = as_utf8(head(path))
    return b'"log_history"' in start and start.lstrip()[:1] == b"{"


def read(path: Path) -> Run:
    """Read the run that a Trainer's state tells.

    Parameters
    ----------
    path : Path
        A ``trainer_state.json`` under any name, a ``checkpoint-N`` folder or an output folder.

    Returns
    -------
    Run
        Of an output folder the newest history, with every ``checkpoint-N`` as a record.

    Raises
    ------
    SourceError
        If no state can be read.
    """
    with collector_paused():
        if not is_folder(path):
            return _run(path, _load(path), _checkpoint_of(path.parent))
        folders = checkpoint_folders(path)
        state = _newest([path, *(folder for _, folder in folders)])
        checkpoints = [Checkpoint(step, folder) for step, folder in folders]
        return _run(path, state, checkpoints or _checkpoint_of(path))


def checkpoint_folders(path: Path) -> list[tuple[int, Path]]:
    """Return the step and folder of every ``checkpoint-N`` in an output folder, by ascending step."""
    try:
        names = [entry.name for entry in path.iterdir()]
    except OSError:
        return []
    found = [(int(match[1]), path / name) for name in names if (match := _CHECKPOINT.fullmatch(name))]
    return sorted((step, folder) for step, folder in found if is_folder(folder))


def _newest(folders: Sequence[Path]) -> _State:
    """Return the state that tells a folder's run, with entries it lacks taken from older ones.

    Not every checkpoint is parsed: the furthest and the latest written decide, the others come in only if those
    cannot be read or their history begins late.
    """
    files = [file for folder in folders if is_regular(file := folder / STATE_FILE)]
    if not files:
        raise SourceError(f"{folders[0]}: no {STATE_FILE} in it or in its checkpoints")
    written = {file: file.stat().st_mtime_ns for file in files}
    # The output folder's own state (written at the end) and the highest checkpoint can both be the furthest.
    own = [file for file in files if file.parent == folders[0]]
    wanted = dict.fromkeys([*own, files[-1], max(files, key=written.__getitem__)])
    damage: list[str] = []
    states = list(_readable(wanted, damage))
    if not states:
        states = list(_readable((file for file in reversed(files) if file not in wanted), damage))[:1]
    if not states:
        raise MalformedLog(damage[0])
    main = max(states, key=lambda state: (state.last_step, len(state.history)))
    for other in states:
        newer = written[other.path] > written[main.path] + _MTIME_DOUBT_NS
        if newer and not other.history.is_prefix_of(main.history):
            damage.append(f"{main.path}: left out, {other.path} is newer and tells another history")
            main = other
    main.damage[:0] = damage
    if main.history.begins_late:
        _add_earlier(main, [file for file in files if file != main.path])
    return main


def _readable(files: Iterable[Path], damage: list[str]) -> Iterable[_State]:
    """Yield the states that can be read; what is wrong with the others goes to ``damage``."""
    for file in files:
        try:
            yield _load(file)
        except SourceError as error:
            damage.append(str(error))


def _add_earlier(main: _State, files: Sequence[Path]) -> None:
    """Put entries of older checkpoints in front of a history that begins late."""
    for file in reversed(files):
        for earlier in _readable([file], main.damage):
            main.history = main.history.after(earlier.history)


def _load(path: Path) -> _State:
    content = read_whole(path)
    try:
        fields, blocks = parse_apart(content, "log_history")
        history = History.of(blocks)
    except ValueError:
        return _load_whole(path, content)
    return _State(path, fields, history, [f"{path}: {sentence}" for sentence in history.damage])


def _load_whole(path: Path, content: bytes) -> _State:
    """Return a state that is no Trainer's own print, or a damaged one."""
    damage: list[str] = []
    try:
        fields = parse(content)
    except ValueError as error:
        fields = _salvaged(content)
        if fields is None:
            raise MalformedLog(f"{path}: no valid JSON ({error}); was the file cut short?") from None
        damage.append(f"{path}: cut short or damaged ({error}); read up to the last whole entry before it")
    entries = fields.get("log_history") if isinstance(fields, dict) else None
    if not isinstance(entries, list):
        found = type(fields).__name__ if entries is None else f"log_history of type {type(entries).__name__}"
        raise MalformedLog(f"{path}: found {found}, expected an object with a list log_history")
    history = History.of([entries])
    return _State(path, fields, history, damage + [f"{path}: {sentence}" for sentence in history.damage])


def _salvaged(content: bytes) -> Any:
    """Return what a state that was cut off or damaged in its log_history tells up to there, or None."""
    if b'"log_history"' not in as_utf8(content):
        return None
    try:
        return parse_start(content, b"]}")
    except ValueError:
        return None


def _run(path: Path, state: _State, checkpoints: Sequence[Checkpoint]) -> Run:
    history = state.history
    segments = [Segment(0)]
    kept = kept_after_rollbacks(history.steps)
    if not kept.all():
        segments += [Segment(step) for step in _resumed_from(history.steps)]
        history = history.where(kept)
    curves = history.curves()
    train_metric, eval_metric = judged_metrics({name: len(curve) for name, curve in curves.items()})
    config = {key: state.fields[key] for key in _CONFIG_KEYS if state.fields.get(key) is not None}
    if reason := not_a_loss(curves):
        config["not_a_loss"] = reason
    max_steps = as_step(state.fields.get("max_steps")) or None
    return Run(
        path=path,
        format=NAME,
        name=_name(path),
        curves=curves,
        checkpoints=tuple(checkpoints),
        segments=tuple(segments),
        config=config,
        status=_status(state, max_steps),
        max_steps=max_steps,
        train_metric=train_metric,
        eval_metric=eval_metric,
        damage=tuple(state.damage),
    )


def kept_after_rollbacks(steps: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which entries of a history in log order still count once steps went back.

    A later entry at a lower step means the run was resumed from before it: what was logged beyond is superseded.
    Entries at one and the same step all count.
    """
    if steps.size < 2:
        return np.ones(steps.size, dtype=np.bool_)
    lowest_after = np.minimum.accumulate(steps[::-1])[::-1]
    return np.append(steps[:-1] <= lowest_after[1:], True)


def _resumed_from(steps: NDArray[np.int64]) -> list[int]:
    """Return the steps that a history went back to."""
    back = np.flatnonzero(steps[1:] < steps[:-1])
    return [int(steps[: i + 1][steps[: i + 1] < steps[i + 1]].max(initial=0)) for i in back.tolist()]


def _status(state: _State, max_steps: int | None) -> Status:
    """Return how the run ended."""
    if not state.history.closes:
        return Status.UNKNOWN
    return Status.STOPPED if max_steps and state.last_step < max_steps else Status.FINISHED


def _checkpoint_of(folder: Path) -> list[Checkpoint]:
    """Return the checkpoint that a folder is, if its name says so."""
    match = _CHECKPOINT.fullmatch(folder.name)
    return [Checkpoint(int(match[1]), folder)] if match else []


def _name(path: Path) -> str:
    """Return the name of the output folder, or of the file where it has a name of its own."""
    if path.name == STATE_FILE:
        path = path.parent
    elif path.suffix == ".json":
        return path.stem
    return path.parent.name if _CHECKPOINT.fullmatch(path.name) and path.parent.name else path.name


def covers(folder: Path, path: Path) -> bool:
    """Return whether a path below an output folder is part of its run: its state, or in a checkpoint."""
    parts = path.relative_to(folder).parts
    return bool(parts) and (parts == (STATE_FILE,) or bool(_CHECKPOINT.fullmatch(parts[0])))


def files(path: Path) -> list[Path]:
    """Return the states that an output folder's run is read from."""
    if not is_folder(path):
        return [path]
    return [path / STATE_FILE, *(folder / STATE_FILE for _, folder in checkpoint_folders(path))]
