"""The base model's weights, and the adapter that is put on it."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from sightline.errors import ModelError
from sightline.training.base_model import local_folder
from sightline.training.hardware import Hardware
from sightline.training.recipe import Recipe


def load_model(recipe: Recipe, hardware: Hardware) -> tuple[Any, Any]:
    """Load the base model.

    Parameters
    ----------
    recipe : Recipe
        Names the model and says whether an adapter is trained.
    hardware : Hardware
        Decides the precision.

    Returns
    -------
    model : transformers.PreTrainedModel
        On the CPU; the Trainer moves it.
    peft_config : peft.LoraConfig or None
        None when all weights are trained.

    Raises
    ------
    ModelError
        If it cannot be loaded.
    """
    folder = local_folder(recipe.model_name_or_path)
    source = str(folder or recipe.model_name_or_path)
    try:
        model, loaded = AutoModelForCausalLM.from_pretrained(
            source, local_files_only=folder is not None, output_loading_info=True, **recipe.model_arguments(hardware)
        )
    except Exception as error:  # loaders raise whatever the parser of the broken file raises
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{recipe.model_name_or_path}: its weights cannot be loaded: {first_line}") from None
    if missing := sorted(loaded["missing_keys"]):
        made = ", ".join(getattr(model.config, "architectures", None) or ["an unnamed class"])
        raise ModelError(
            f"{recipe.model_name_or_path}: its weights, saved by {made}, lack {missing[0]}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f", which {type(model).__name__} would make at random; give a causal language model"
        )
    lora = recipe.lora_arguments()
    if lora is None:
        return model, None
    from peft import LoraConfig

    return model, LoraConfig(**lora)


def refuse_broken_weights(model: torch.nn.Module, name: str) -> None:
    """Refuse to train weights that hold NaN or infinity: every loss of theirs would be no number.

    Raises
    ------
    ModelError
        With the first tensor of them, and what to do.
    """
    broken = {key: weight for key, weight in model.named_parameters() if not _is_finite(weight)}
    if broken:
        key, weight = next(iter(broken.items()))
        count = int((~weight.detach().isfinite()).sum())
        raise ModelError(
            f"{name}: {count:,} of the {weight.numel():,} values of {key} are NaN or infinite"
            + (f", and some of {len(broken) - 1} more tensors" if len(broken) > 1 else "")
            + ": nothing can be learnt from them; fetch the weights again, or take an earlier checkpoint"
        )


def _is_finite(weight: torch.Tensor) -> bool:
    """Whether all values of a weight are numbers; what is quantised has no others."""
    if not weight.is_floating_point() or weight.is_meta or weight.dtype.itemsize == 1:
        return True
    total = weight.detach().sum(dtype=torch.promote_types(weight.dtype, torch.float32))  # one reading, quickly
    return bool(total.isfinite()) or bool(weight.detach().isfinite().all())
