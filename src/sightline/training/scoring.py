"""score_file(): the exact loss of a model on its disk, on rows in a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sightline.errors import ModelError
from sightline.evaluation import EvalSet, evaluate
from sightline.runs import ExampleLosses
from sightline.training.base_model import load_config, load_tokenizer
from sightline.training.hardware import Hardware
from sightline.training.model import load_model
from sightline.training.prepare import max_length_of
from sightline.training.pretokenised import pretokenised_rows
from sightline.training.quiet import quiet_libraries
from sightline.training.recipe import Recipe
from sightline.training.rows import Columns, Tokenisation, TokenisedRows, load_examples, tokenise
from sightline.training.rows.chat import chat_template

ADAPTER_CONFIG = "adapter_config.json"


@dataclass(frozen=True, eq=False, slots=True)
class Scored:
    """A file of rows under one model."""

    rows: TokenisedRows
    losses: ExampleLosses
    notices: tuple[str, ...]
    """What the user should know of how the rows were scored."""
    max_length: int
    """Tokens a row was cut to."""


def score_file(
    model: str,
    data: str,
    *,
    adapter: str | None = None,
    batch_tokens: int | None = None,
    max_length: int | None = None,
    like: Scored | None = None,
) -> Scored:
    """Score every row of a file.

    Parameters
    ----------
    model : str
        Folder or hub id of a causal language model, or the folder of an adapter, which names its base.
    data : str
        Local file or hub id, in any shape that training takes; or a local file of ``input_ids``.
    adapter : str, optional
        Folder of an adapter to put on the model.
    batch_tokens : int, optional
        Most tokens of a forward pass; does not change the result.
    max_length : int, optional
        Tokens a row is cut to; the model's context unless told.
    like : Scored, optional
        The result this one will be compared with: its rows must be the same tokens.

    Returns
    -------
    Scored
        Rows, losses in the order of the file, and notices.

    Raises
    ------
    DataError, ModelError
        If rows or model cannot be used, or the tokens differ from ``like``.
    """
    quiet_libraries()
    base, adapter = _base_of(model, adapter)
    words = ["--model_name_or_path", base, "--dataset", data, "--output_dir", "."]
    if max_length is not None:
        words += ["--max_length", str(max_length)]
    recipe = Recipe.load(None, words)
    config, tokenizer = load_config(recipe), load_tokenizer(recipe)
    notes: list[str] = []
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    longest = max_length_of(recipe, config, notes) if max_length or not context else int(context)
    how = Tokenisation(
        max_length=longest if like is None else min(longest, like.max_length),
        completion_only=True,
        every_turn=False,
        template=chat_template(None, tokenizer),
    )
    rows = pretokenised_rows(data, tokenizer, how.max_length)
    if rows is None:
        rows = tokenise(load_examples(recipe.dataset, Columns()), tokenizer, how)
    if like is not None:
        _check_alike(rows, like, how.max_length, model, data)
    loaded, _ = load_model(recipe, Hardware.detect())
    if adapter is not None:
        loaded = _with_adapter(loaded, adapter)
    eval_set = EvalSet(rows, name=data, places=[example.where for example in rows.examples])
    losses = evaluate(loaded, eval_set, batch_tokens=batch_tokens)
    cut = int(rows.truncated.sum())
    if cut:
        are, were = ("is", "was") if cut == 1 else ("are", "were")
        notes.append(f"{cut} of {len(rows)} rows {are} longer than {how.max_length} tokens and {were} cut")
    if rows.without_label:
        left_out = len(rows.without_label)
        told = "1 row has" if left_out == 1 else f"{left_out} rows have"
        notes.append(f"{told} nothing left to score once cut to {how.max_length} tokens: left out")
    return Scored(rows, losses, (*notes, *eval_set.notices), how.max_length)


def _check_alike(rows: TokenisedRows, like: Scored, max_length: int, model: str, data: str) -> None:
    """Refuse to compare losses of other tokens."""
    if np.array_equal(rows.input_ids, like.rows.input_ids) and np.array_equal(rows.labelled, like.rows.labelled):
        return
    if max_length < like.max_length and rows.truncated.sum() > like.rows.truncated.sum():
        raise ModelError(
            f"{model}: reads {max_length} tokens where the other model reads {like.max_length}, and rows of {data} are "
            f"longer: give --max-length {max_length}, so that both are scored on the same tokens"
        )
    raise ModelError(f"{model}: its tokenizer makes other tokens of {data}: losses per token cannot be compared")


def _base_of(model: str, adapter: str | None) -> tuple[str, str | None]:
    """Tell an adapter's folder from a model's: the former names its base."""
    config = Path(model) / ADAPTER_CONFIG
    if adapter is not None or not config.is_file():
        return model, adapter
    try:
        base = json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{config}: does not name its base model ({error}); give MODEL and --adapter {model}"
        ) from None
    return str(base), model


def _with_adapter(model: object, adapter: str) -> object:
    from peft import PeftModel

    try:
        return PeftModel.from_pretrained(model, adapter)
    except Exception as error:  # loaders raise whatever the parser of the broken file raises
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{adapter}: the adapter cannot be put on the model: {first_line}") from None
