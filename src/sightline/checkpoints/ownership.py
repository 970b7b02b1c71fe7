"""Whose a checkpoint folder is: only what provably came from the Trainer or Sightline may ever be deleted.

The Trainer's own rotation globs ``checkpoint-*`` and has deleted folders that people made themselves. Here a folder is
somebody else's until its name, its trainer state, every file in it and its place in the run's history say otherwise.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from sightline.checkpoints.listing import Listed
from sightline.checkpoints.state import read_state
from sightline.errors import CheckpointError
from sightline.runs import Run

_WRITTEN = re.compile(
    r"""(?x)
    (config|generation_config|adapter_config|trainer_state|sightline_[a-z]+(_\d+)?|model\.safetensors\.index
      |pytorch_model\.bin\.index|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template
      |processor_config|preprocessor_config|video_preprocessor_config)\.json
    | (model|adapter_model)(-\d+-of-\d+)?\.safetensors
    | (pytorch_model|adapter_model)(-\d+-of-\d+)?\.bin
    | pytorch_model_fsdp[\w.]*\.bin | optimizer[\w.]*\.bin
    | (optimizer|scheduler|scaler)\.pt | rng_state(_\d+)?\.pth | training_args\.bin
    | README\.md | merges\.txt | vocab\.txt | (tokenizer|spiece|sentencepiece\.bpe)\.model | chat_template\.jinja
    | checkpoint-is-incomplete\.txt | sightline_manifest\.json\.partial | latest | zero_to_fp32\.py | \.tmp\w*
    | (pytorch_model_fsdp|optimizer)(_\d+)?/(\.metadata|__\d+_\d+\.distcp)
    | global_step\d+/[\w.]+\.pt
    | additional_chat_templates/\w+\.jinja
    """
)
"""Every file that the Trainer, PEFT, accelerate, DeepSpeed or Sightline writes into a checkpoint."""
_SAME_LOSS = 1e-3
_SHOWN = 3


def why_foreign(listed: Listed, run: Run | None) -> str | None:
    """Say why a folder may not be deleted: what in it, or in the history, the Trainer did not write.

    Parameters
    ----------
    listed : Listed
        A folder named like a checkpoint.
    run : Run, optional
        The history of the run.

    Returns
    -------
    str or None
        None when everything says that the Trainer wrote it.
    """
    folder = listed.parts.path
    if folder.is_symlink():
        return "a link, which is not followed"
    if folder.name != f"checkpoint-{listed.step}":
        return "not a name that the Trainer gives"
    try:
        state = read_state(folder)
        foreign = foreign_entries(folder)
    except CheckpointError:
        return "no trainer state in it says that the Trainer wrote it"
    if state.global_step != listed.step:
        return f"its trainer state is of step {state.global_step}, not of {listed.step}: a copy?"
    if foreign:
        return f"holds what neither the Trainer nor Sightline wrote: {', '.join(foreign[:_SHOWN])}"
    return _not_in_history(listed.step, state.metrics.get("eval_loss"), state.metrics.get("loss"), run)


def foreign_entries(folder: Path) -> list[str]:
    """Name the files, links and empty folders of a checkpoint that no trainer writes.

    Raises
    ------
    CheckpointError
        If a folder may not be listed.
    """

    def refused(error: OSError) -> None:
        raise CheckpointError(f"{error.filename}: cannot be listed ({error.strerror})")

    foreign = []
    for parent, folders, names in os.walk(folder, onerror=refused):
        inner = Path(parent).relative_to(folder)
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in (*names, *links):
            path = Path(parent) / name
            if path.is_symlink() or not path.is_file() or not _WRITTEN.fullmatch((inner / name).as_posix()):
                foreign.append((inner / name).as_posix())
        if not names and not folders and inner != Path():
            foreign.append(inner.as_posix())
    return sorted(foreign)


def _not_in_history(step: int, eval_loss: float | None, loss: float | None, run: Run | None) -> str | None:
    """Say where the history of the run speaks against a checkpoint: a folder copied from another run."""
    if run is None or run.step_unit != "step":
        return None
    if run.format == "journal":
        saved = {checkpoint.step for checkpoint in run.checkpoints}
        return None if step in saved else "the journal of this run knows no save at this step"
    for name, own, curve in (("eval_loss", eval_loss, run.eval_loss), ("loss", loss, run.train_loss)):
        if own is None or curve is None:
            continue
        told = curve.values[curve.steps == step]
        if told.size and not np.isclose(told[-1], own, rtol=_SAME_LOSS, atol=_SAME_LOSS, equal_nan=True):
            return f"its {name} of {own:.4g} is not the {float(told[-1]):.4g} of this run at its step"
    return None
