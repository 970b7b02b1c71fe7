"""The base model's config and tokenizer, with a clear answer where a folder lacks one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sightline.errors import ModelError
from sightline.training.recipe import Recipe

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "spiece.model",
    "tokenizer_config.json",
    "vocab.txt",
)
WEIGHT_PATTERNS = ("*.safetensors", "*.bin")
_HUB_ID = re.compile(r"^[\w.-]+(?:/[\w.-]+)?$")


def local_folder(name: str) -> Path | None:
    """Return the folder a model name stands for; None for a model of the hub.

    Raises
    ------
    ModelError
        If it can only be a path, and nothing is there.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{name} is a file; a model is a folder with config.json, weights and tokenizer")
    if not _HUB_ID.match(name) or name.startswith("."):
        raise ModelError(f"{name}: no such model folder")
    return None


def load_config(recipe: Recipe) -> Any:
    """Load the model's config without its weights.

    Raises
    ------
    ModelError
        If the folder does not exist, holds no model, or no model that writes text.
    """
    folder = local_folder(recipe.model_name_or_path)
    if folder is not None:
        if not (folder / "config.json").is_file():
            raise ModelError(
                f"{folder}: no config.json, so no model (found: {_listing(folder)}){_adapter_hint(folder)}"
            )
        if not any(next(folder.glob(pattern), None) for pattern in WEIGHT_PATTERNS):
            raise ModelError(f"{folder}: config.json but no weights (*.safetensors) (found: {_listing(folder)})")
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = AutoConfig.from_pretrained(
            str(folder or recipe.model_name_or_path),
            local_files_only=folder is not None,
            trust_remote_code=recipe.trust_remote_code,
            revision=recipe.model_revision,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{recipe.model_name_or_path}: its config cannot be read: {_first_line(error)}") from None
    kind = getattr(config, "model_type", "")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not getattr(config, "auto_map", None):
        raise ModelError(
            f"{recipe.model_name_or_path}: a model of type {kind!r} does not write text; give a causal language model"
        )
    return config


def load_tokenizer(recipe: Recipe) -> Any:
    """Load the tokenizer and see that it can pad.

    Raises
    ------
    ModelError
        If the folder holds none, or the end token asked for is not in its vocabulary.
    """
    folder = local_folder(recipe.tokenizer)
    if folder is not None and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelError(
            f"{folder}: no tokenizer in this folder (found: {_listing(folder)}); copy the base model's tokenizer files "
            "there, or give tokenizer_name_or_path"
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder or recipe.tokenizer),
            local_files_only=folder is not None,
            trust_remote_code=recipe.trust_remote_code,
            **({} if recipe.model_revision == "main" else {"revision": recipe.model_revision}),
        )
    except Exception as error:  # OSError, ValueError, and whatever the tokenizers library raises on a broken file
        raise ModelError(f"{recipe.tokenizer}: its tokenizer cannot be read: {_first_line(error)}") from None
    _settle_special_tokens(tokenizer, recipe)
    return tokenizer


def _settle_special_tokens(tokenizer: Any, recipe: Recipe) -> None:
    """Set the end token asked for, and a pad token where there is none (labels of padding are masked anyway)."""
    asked = recipe.arguments.get("eos_token")
    if asked is not None:
        if asked not in tokenizer.get_vocab():
            raise ModelError(f"eos_token: {asked!r} is not in the vocabulary of {recipe.tokenizer}")
        tokenizer.eos_token = asked
    pad = recipe.arguments.get("pad_token")
    if pad is not None:
        if pad not in tokenizer.get_vocab():
            raise ModelError(f"pad_token: {pad!r} is not in the vocabulary of {recipe.tokenizer}")
        tokenizer.pad_token = pad
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token or tokenizer.bos_token
    if tokenizer.pad_token is None:
        raise ModelError(
            f"{recipe.tokenizer}: the tokenizer has neither a pad nor an end token; batches cannot be padded"
        )


def _listing(folder: Path) -> str:
    """Names in a folder, for a message."""
    names = sorted(p.name for p in folder.iterdir())
    return ", ".join(names[:6]) + (", …" if len(names) > 6 else "") if names else "nothing"


def _adapter_hint(folder: Path) -> str:
    """Return a word on folders that hold a LoRA adapter alone."""
    if (folder / "adapter_config.json").is_file():
        return "; this is a LoRA adapter: give its base model, or merge the two first"
    if any(folder.glob("checkpoint-*")):
        return "; give one of its checkpoint folders"
    return ""


def _first_line(error: Exception) -> str:
    """Return the first line of an error's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
