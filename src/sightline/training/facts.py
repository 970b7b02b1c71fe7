"""What the journal keeps of a run's set-up, so that a reader and a resume know it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainingArguments


def run_facts(args: TrainingArguments, model: Any) -> dict[str, Any]:
    """Return the Trainer's arguments and the model in brief.

    Parameters
    ----------
    args : TrainingArguments
        Of the run.
    model : torch.nn.Module or None
        What is trained.

    Returns
    -------
    dict
        ``arguments`` and ``model``, each a mapping.
    """
    arguments = {**args.to_dict(), "world_size": args.world_size, "threads": torch.get_num_threads()}
    return {"arguments": arguments, "model": _model_facts(model)}


def _model_facts(model: Any) -> dict[str, Any]:
    if model is None:
        return {}
    parameters = list(model.parameters())
    config = getattr(model, "config", None)
    return {
        "class": type(model).__name__,
        "name_or_path": str(getattr(config, "_name_or_path", "")),
        "attn_implementation": getattr(config, "_attn_implementation", None),
        "parameters": sum(p.numel() for p in parameters),
        "trainable_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "dtype": str(parameters[0].dtype).removeprefix("torch.") if parameters else None,
    }
