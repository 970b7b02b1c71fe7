"""The Trainer's ``trainer_state.json``: a single file, a ``checkpoint-N`` folder, or a whole output folder.

The Trainer writes its complete ``log_history`` into every checkpoint and, on a resume, rolls it back to the
checkpoint it starts from. So the newest state of an output folder tells the run; older ones only add what it lacks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sightline.errors import MalformedLog, SourceError
from sightline.runs import Checkpoint, Curve, Run, Segment, Status
from sightline.runs.names import judged_metrics, not_a_loss
from sightline.sources.files import as_utf8, head, is_folder, is_regular, read_whole
from sightline.sources.json_text import collector_paused, parse, parse_start
from sightline.sources.numbers import MAX_STEP, as_array, as_step
from sightline.sources.table import MAX_METRICS, alike

NAME = "trainer_state"
STATE_FILE = "trainer_state.json"
_CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,15})")
_MTIME_DOUBT_NS = 2 * 10**9  # states written within 2 s of each other are not told apart by their clock
_BLOCK = 2048  # entries whose columns are taken at once: as many as stay in the processor's cache
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
    history: list[dict[str, Any]]
    """Each entry has an int ``step``."""
    steps: NDArray[np.int64]
    damage: list[str] = field(default_factory=list)

    @property
    def global_step(self) -> int:
        return as_step(self.fields.get("global_step")) or 0

    @property
    def last_step(self) -> int:
        return max(self.global_step, int(self.steps[-1]) if self.steps.size else 0)


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
        if newer and not _is_prefix(other.history, main.history):
            damage.append(f"{main.path}: left out, {other.path} is newer and tells another history")
            main = other
    main.damage[:0] = damage
    if _late(main):
        _add_earlier(main, [file for file in files if file != main.path])
    return main


def _readable(files: Iterable[Path], damage: list[str]) -> Iterable[_State]:
    """Yield the states that can be read; what is wrong with the others goes to ``damage``."""
    for file in files:
        try:
            yield _load(file)
        except SourceError as error:
            damage.append(str(error))


def _is_prefix(shorter: list[dict[str, Any]], longer: list[dict[str, Any]]) -> bool:
    """Return whether one history is the beginning of another (its closing summary aside)."""
    if shorter and "train_runtime" in shorter[-1]:
        shorter = shorter[:-1]
    return shorter == longer[: len(shorter)]


def _late(state: _State) -> bool:
    """Return whether a history begins later than its own logging interval explains: older entries were lost."""
    if len(state.history) < 2:
        return False
    first, last = state.history[0]["step"], state.history[-1]["step"]
    return bool(first > 2 * max(1, (last - first) / (len(state.history) - 1)) + 1)


def _add_earlier(main: _State, files: Sequence[Path]) -> None:
    """Put entries of older checkpoints in front of a history that begins late."""
    for file in reversed(files):
        first = main.history[0]["step"]
        for earlier in _readable([file], main.damage):
            main.history[:0] = [entry for entry in earlier.history if entry["step"] < first]
            main.steps = np.concatenate([earlier.steps[earlier.steps < first], main.steps])


def _load(path: Path) -> _State:
    content = read_whole(path)
    damage: list[str] = []
    try:
        fields = parse(content)
    except ValueError as error:
        fields = _salvaged(content)
        if fields is None:
            raise MalformedLog(f"{path}: no valid JSON ({error}); was the file cut short?") from None
        damage.append(f"{path}: cut short or damaged ({error}); read up to the last whole entry before it")
    history = fields.get("log_history") if isinstance(fields, dict) else None
    if not isinstance(history, list):
        found = type(fields).__name__ if history is None else f"log_history of type {type(history).__name__}"
        raise MalformedLog(f"{path}: found {found}, expected an object with a list log_history")
    if not set(map(type, history)) <= {dict}:
        entries = [entry for entry in history if type(entry) is dict]
        damage.append(f"{path}: {len(history) - len(entries)} entries of log_history are no objects and were left out")
        history = entries
    return _State(path, fields, *_with_steps(history), damage)


def _salvaged(content: bytes) -> Any:
    """Return what a state that was cut off or damaged in its log_history tells up to there, or None."""
    if b'"log_history"' not in as_utf8(content):
        return None
    try:
        return parse_start(content, b"]}")
    except ValueError:
        return None


def _with_steps(entries: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], NDArray[np.int64]]:
    """Return the entries and their steps, shape (n,); entries without one belong to the step before them."""
    try:
        steps = list(map(itemgetter("step"), entries))
        if set(map(type, steps)) <= {int}:
            known = np.array(steps, dtype=np.int64)
            if not known.size or (known.min() >= 0 and known.max() <= MAX_STEP):
                return entries, known
    except (KeyError, OverflowError):
        pass
    last = 0
    with_steps = []
    for entry in entries:
        step = as_step(entry.get("step"))
        last = last if step is None else step
        with_steps.append({**entry, "step": last})
    return with_steps, np.array([entry["step"] for entry in with_steps], dtype=np.int64)


def _run(path: Path, state: _State, checkpoints: Sequence[Checkpoint]) -> Run:
    entries, steps = state.history, state.steps
    segments = [Segment(0)]
    kept = kept_after_rollbacks(steps)
    if not kept.all():
        segments += [Segment(int(step)) for step in _resumed_from(steps)]
        entries, steps = [entry for entry, keep in zip(entries, kept.tolist(), strict=True) if keep], steps[kept]
    left_out: list[str] = []
    curves = _curves(entries, steps, left_out)
    state.damage += [f"{state.path}: {sentence}" for sentence in left_out]
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


def _curves(entries: list[dict[str, Any]], steps: NDArray[np.int64], damage: list[str]) -> dict[str, Curve]:
    """Return the curves of all numeric metrics; entries of one shape are taken column by column."""
    pieces: dict[str, list[tuple[NDArray[np.int64], NDArray[np.float64]]]] = {}
    left_out = 0
    for begin in range(0, len(entries), _BLOCK):
        block_steps = steps[begin : begin + _BLOCK]
        for names, places, columns in alike(entries[begin : begin + _BLOCK]):
            own_steps = block_steps[places]
            for name, column in zip(names, columns, strict=True):
                if name == "step":
                    continue
                if len(pieces) >= MAX_METRICS and name not in pieces:
                    left_out += 1
                    continue
                values, valid = as_array(column)
                if valid is None:
                    pieces.setdefault(name, []).append((own_steps, values))
                elif valid.any():
                    pieces.setdefault(name, []).append((own_steps[valid], values[valid]))
    if left_out:
        damage.append(f"more than {MAX_METRICS} metrics; {left_out} values were left out")
    return {
        name: Curve.of(np.concatenate([s for s, _ in parts]), np.concatenate([v for _, v in parts]))
        for name, parts in pieces.items()
    }


def _status(state: _State, max_steps: int | None) -> Status:
    """Return how the run ended: the Trainer logs a summary with its runtime when it leaves its loop in order."""
    if not any("train_runtime" in entry for entry in state.history[-5:]):
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
