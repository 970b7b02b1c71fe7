"""prepare(): everything before the model's weights are loaded, in the order in which it can fail.

``prepare(recipe) -> Prepared`` with the tokenizer, the model's config, tokenised training and validation rows, the gold
set's rows, the cadence and the hardware.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sightline.errors import DataError, MissingExtra
from sightline.training.base_model import load_config, load_tokenizer
from sightline.training.cadence import Cadence
from sightline.training.hardware import Hardware
from sightline.training.recipe import Recipe
from sightline.training.recipe.settings import DEFAULT_MAX_LENGTH
from sightline.training.rows import (
    Columns,
    Example,
    Tokenisation,
    TokenisedRows,
    load_examples,
    prompt_hash,
    split,
    tokenise,
    validation_rows,
)
from sightline.training.rows.chat import chat_template
from sightline.training.rows.loading import validation_files
from sightline.training.rows.packing import packed_blocks


@dataclass(frozen=True, eq=False, slots=True)
class Prepared:
    """A run that is ready but for its model's weights."""

    recipe: Recipe
    tokenizer: Any
    """``PreTrainedTokenizerBase`` with a pad token."""
    model_config: Any
    """``PretrainedConfig`` of the base model."""
    train_rows: TokenisedRows
    eval_rows: TokenisedRows | None
    """None where the recipe asks for no validation."""
    gold_rows: tuple[Example, ...]
    """Rows of the gold set as written; empty without one."""
    cadence: Cadence
    hardware: Hardware
    max_length: int
    """Tokens a row is cut to."""
    notes: tuple[str, ...] = ()
    """What the user should know of how the recipe was understood."""

    def row_facts(self) -> dict[str, Any]:
        """Counts and hashes of the rows, so that a resumed run notices other ones."""
        sides = {"train": self.train_rows, "eval": self.eval_rows}
        facts: dict[str, Any] = {}
        for side, rows in sides.items():
            facts[side] = 0 if rows is None else len(rows)
            facts[f"{side}_digest"] = None if rows is None else rows.digest()
        return facts

    def sft_arguments(self) -> dict[str, Any]:
        """Keyword arguments for ``trl.SFTConfig`` that fit these rows and this machine's memory."""
        from sightline.training.checks.context import CheckContext
        from sightline.training.checks.memory import needs_checkpointing
        from sightline.training.recipe.sft import sft_arguments

        arguments = sft_arguments(
            self.recipe,
            self.cadence,
            self.hardware,
            lengths=self.train_rows.lengths,
            activation_checkpointing=needs_checkpointing(CheckContext.of(self)),
        )
        if arguments.get("max_length") is not None:
            arguments["max_length"] = self.max_length
        return arguments


def require_train_extra(what: str = "`sightline train`") -> None:
    """Raise MissingExtra, naming the pip line, unless the packages of the ``train`` extra are installed.

    Raises
    ------
    MissingExtra
        Naming the first package that is missing.
    """
    from importlib.util import find_spec

    for package in ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtra(what, package, "train")


def prepare(recipe: Recipe, hardware: Hardware | None = None) -> Prepared:
    """Load the tokenizer and the rows, split them, tokenise them and plan the run.

    Parameters
    ----------
    recipe : Recipe
        What to train.
    hardware : Hardware, optional
        Looked up unless given.

    Returns
    -------
    Prepared
        Everything but the model's weights.

    Raises
    ------
    DataError, ModelError, MissingExtra
        With one clear line each.
    """
    require_train_extra()
    notes = list(recipe.notes)
    config = load_config(recipe)
    tokenizer = load_tokenizer(recipe)
    train, validation = _load_sides(recipe, notes)
    gold = _load_gold(recipe)
    max_length = max_length_of(recipe, config, notes)
    how = Tokenisation(
        max_length=max_length,
        completion_only=recipe.completion_only_loss is not False,
        every_turn=recipe.assistant_only_loss,
        template=chat_template(recipe.chat_template, tokenizer),
    )
    train_rows = tokenise(train, tokenizer, how)
    eval_rows = tokenise(validation, tokenizer, how) if validation else None
    if recipe.chat_template not in (None, "tokenizer_default"):
        tokenizer.chat_template = how.template  # saved with the model, so that it is prompted as it was trained
    hardware = hardware or Hardware.detect(use_cpu=recipe.use_cpu)
    cadence = plan_cadence(recipe, train_rows, hardware, max_length, evaluate=eval_rows is not None)
    notes.extend(cadence.notes)
    return Prepared(
        recipe,
        tokenizer,
        config,
        train_rows,
        eval_rows,
        gold,
        cadence,
        hardware,
        max_length,
        tuple(dict.fromkeys(notes)),
    )


def plan_cadence(
    recipe: Recipe, rows: TokenisedRows, hardware: Hardware, max_length: int, *, evaluate: bool
) -> Cadence:
    """Plan when the run logs, evaluates and saves.

    Parameters
    ----------
    recipe : Recipe
        Its intervals win.
    rows : TokenisedRows
        Training rows.
    hardware : Hardware
        For the number of processes.
    max_length : int
        Tokens of a packed block.
    evaluate : bool
        Whether there are validation rows.

    Returns
    -------
    Cadence
        In optimizer steps, as the Trainer will count them.
    """
    given = recipe.arguments
    count = packed_blocks(rows.lengths, max_length) if recipe.packing else len(rows)
    numbers = {"rows": count, "batch_size": recipe.batch_size, "accumulation": recipe.gradient_accumulation_steps}
    cadence = Cadence.plan(
        **numbers,
        world_size=hardware.world_size,
        epochs=recipe.num_train_epochs,
        max_steps=recipe.max_steps,
        evals_per_epoch=recipe.evals_per_epoch,
        eval_steps=given.get("eval_steps"),
        logging_steps=given.get("logging_steps"),
        save_steps=given.get("save_steps"),
        saves_per_epoch=recipe.saves_per_epoch,
        evaluate=evaluate,
        drop_last=bool(given.get("dataloader_drop_last", False)),
    )
    if given.get("eval_strategy") == "epoch" and evaluate:
        cadence = replace(cadence, eval_steps=cadence.steps_per_epoch, fixed_evaluation=True)
    if given.get("save_strategy") == "epoch":
        cadence = replace(cadence, save_steps=cadence.steps_per_epoch, fixed_saving=True)
    if given.get("save_strategy") == "no":
        cadence = replace(cadence, save_steps=None, fixed_saving=True)
    return cadence


def _load_sides(recipe: Recipe, notes: list[str]) -> tuple[list[Example], list[Example]]:
    """Training and validation rows as written."""
    base = Path(recipe.folder) if recipe.folder else None
    eval_sources: Sequence[str] = recipe.eval_dataset
    if recipe.evaluates and not eval_sources and not recipe.eval_size:
        if recipe.eval_split:
            eval_sources = recipe.dataset
        elif found := validation_files(recipe.dataset, base):
            eval_sources = [str(path) for path in found]
            notes.append(f"validation rows are those of {', '.join(eval_sources)}")
    separate = bool(eval_sources) or not recipe.evaluates
    columns = _columns(recipe)
    train = load_examples(
        recipe.dataset,
        columns,
        split=recipe.dataset_split,
        config=recipe.dataset_config,
        limit=recipe.max_train_rows if separate else None,
        base=base,
    )
    if not separate:
        return _split_off(recipe, train)
    if not recipe.evaluates:
        return train, []
    validation = load_examples(
        eval_sources,
        columns,
        split=recipe.eval_split or "validation",
        config=recipe.dataset_config,
        limit=recipe.max_eval_rows,
        base=base,
    )
    return train, validation


def _split_off(recipe: Recipe, rows: list[Example]) -> tuple[list[Example], list[Example]]:
    """Rows divided by the hash of their prompts."""
    wanted = validation_rows(len(rows), recipe.eval_size)
    mask = split([prompt_hash(row.prompt_text) for row in rows], wanted, recipe.seed)
    train = [row for row, held_out in zip(rows, mask, strict=True) if not held_out]
    validation = [row for row, held_out in zip(rows, mask, strict=True) if held_out]
    return train[: recipe.max_train_rows], validation[: recipe.max_eval_rows]


def _columns(recipe: Recipe) -> Columns:
    """Columns named by the recipe."""
    return Columns(
        shape=recipe.dataset_format,
        prompt=recipe.prompt_column,
        completion=recipe.completion_column,
        text=recipe.text_column,
        messages=recipe.messages_column,
    )


def _load_gold(recipe: Recipe) -> tuple[Example, ...]:
    """Rows of the gold set as written, so that its prompts can be looked for in the training rows."""
    if recipe.gold is None:
        return ()
    base = Path(recipe.folder) if recipe.folder else None
    try:
        return tuple(load_examples([recipe.gold], Columns(needs_completion=False), base=base))
    except DataError as error:
        raise DataError(f"gold: {error}") from None


def max_length_of(recipe: Recipe, config: Any, notes: list[str]) -> int:
    """Tokens a row is cut to: as asked, else 1,024, never more than the model's context."""
    text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
    context = getattr(text_config, "max_position_embeddings", None)
    context = int(context) if isinstance(context, int) and context > 0 else None
    asked = recipe.arguments.get("max_length")
    if asked is None:
        return min(DEFAULT_MAX_LENGTH, context) if context else DEFAULT_MAX_LENGTH
    if context is not None and asked > context:
        notes.append(
            f"max_length {asked} is more than the model's context of {context} tokens: rows are cut to {context}"
        )
        return context
    return int(asked)
