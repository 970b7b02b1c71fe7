"""Recipe: what to train, on which rows and how, from flat YAML and command-line overrides.

``Recipe.load(path, overrides)`` reads, translates other tools' names, refuses what is unknown, of the wrong type or
contradicts itself, and returns a frozen record. ``recipe.arguments`` holds the Trainer's own arguments the user gave;
the properties below fill in what was left open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sightline.training.recipe.aliases import RENAMED

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from sightline.training.cadence import Cadence
    from sightline.training.hardware import Hardware

DEFAULT_MAX_LENGTH = 1024
"""Tokens a row is cut to unless told, or the model's context where that is shorter (TRL's default)."""
DEFAULT_BATCH_SIZE = 8
LORA_LEARNING_RATE = 2e-4
"""About ten times the rate of full fine-tuning, as LoRA's authors and TRL advise."""
FULL_LEARNING_RATE = 2e-5

DatasetFormat = Literal["auto", "prompt_completion", "messages", "text", "alpaca", "question_answer"]


class Recipe(BaseModel):
    """What to train, on which rows and how.

    Attributes
    ----------
    given : frozenset of str
        Canonical names of every key the user set, in the file or on the command line.
    arguments : mapping
        The Trainer's own arguments (``TrainingArguments`` and TRL's ``SFTConfig``) that were given, in their types.
    notes : tuple of str
        What a reader should know of how the keys were understood, a sentence each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    # the model
    model_name_or_path: str = Field(min_length=1)
    tokenizer_name_or_path: str | None = None
    model_revision: str = "main"
    trust_remote_code: bool = False
    dtype: Literal["auto", "float32", "bfloat16", "float16"] | None = None
    attn_implementation: str | None = None
    chat_template: str | None = None
    """A Jinja file, Jinja text, ``chatml``, or ``tokenizer_default``."""

    # the rows
    dataset: tuple[str, ...] = Field(min_length=1)
    """Local files, folders, patterns such as ``data/*.jsonl``, or one dataset of the hub."""
    dataset_config: str | None = None
    dataset_split: str = "train"
    dataset_format: DatasetFormat = "auto"
    eval_dataset: tuple[str, ...] = ()
    eval_split: str | None = None
    eval_size: float | None = Field(default=None, ge=0)
    """Share of the rows (below 1) or number of rows kept for validation; None for a sensible share."""
    prompt_column: str | None = None
    completion_column: str | None = None
    text_column: str | None = None
    messages_column: str | None = None
    max_train_rows: int | None = Field(default=None, ge=1)
    max_eval_rows: int | None = Field(default=None, ge=1)
    gold: str | None = None
    keep_by: Literal["loss", "gold"] = "loss"
    forgetting: str = "embedded"
    """General text whose loss says what was forgotten: a file, ``embedded``, or ``none``."""

    # LoRA
    use_peft: bool = False
    lora_r: int = Field(default=16, ge=1)
    lora_alpha: float | None = Field(default=None, gt=0)
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    lora_target_modules: str | tuple[str, ...] = "all-linear"
    lora_modules_to_save: tuple[str, ...] = ()
    lora_bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False

    # the watch
    evals_per_epoch: float = Field(default=15, gt=0)
    saves_per_epoch: float | None = Field(default=None, gt=0)
    early_stopping: bool = True
    eval_time_budget: float = Field(default=0.10, gt=0, le=1)
    """Largest share of the run's time that evaluation may take."""
    resume: bool = False
    """Go on from the newest verified checkpoint of ``output_dir``."""
    on_failed_save: Literal["stop", "continue"] = "stop"
    """What a save that fails (a full disk) does to the training; the last good checkpoint stays either way."""
    merge: bool = False
    """Write the best adapter merged into its base model, too."""
    overwrite: bool = False
    force: bool = False
    """Train although a check found something critical."""
    wandb_project: str | None = None

    # how it was given
    arguments: Mapping[str, Any] = Field(default_factory=dict)
    given: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    source: str = "run"
    """Name of the recipe's file, without its ending; the default output folder is called after it."""
    folder: str | None = None
    """Folder of the recipe's file: relative paths of rows are looked for here too."""

    @classmethod
    def load(cls, path: str | Path | None, overrides: Mapping[str, Any] | Sequence[str] = ()) -> Recipe:
        """Read a recipe.

        Parameters
        ----------
        path : path or None
            A flat YAML file; None for a recipe made of overrides alone.
        overrides : mapping or sequence of str
            ``{"learning_rate": "1e-4"}`` or ``["--learning_rate", "1e-4", "--use_peft"]``; they win over the file.

        Returns
        -------
        Recipe
            Checked for unknown keys, wrong types and contradictions.

        Raises
        ------
        RecipeError
            Naming the file and line, the key, what was found and what was expected.
        MissingExtra
            If transformers or TRL is not installed.
        """
        from sightline.training.recipe.loading import load_recipe

        return load_recipe(None if path is None else Path(path), overrides)

    # -- the Trainer's arguments with what was left open filled in -----------------------------------------------

    @property
    def output_dir(self) -> Path:
        """Folder of the run: checkpoints, and Sightline's own ``sightline/`` beside them."""
        return Path(self.arguments.get("output_dir") or f"outputs/{self.source}").expanduser()

    @property
    def seed(self) -> int:
        """Seed of the split, the order of rows, the adapter's start and dropout."""
        return int(self.arguments.get("seed", 42))

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        default = LORA_LEARNING_RATE if self.use_peft else FULL_LEARNING_RATE
        return float(self.arguments.get("learning_rate", default))

    @property
    def num_train_epochs(self) -> float:
        """Epochs asked; without effect where ``max_steps`` is set."""
        return float(self.arguments.get("num_train_epochs", 3.0))

    @property
    def max_steps(self) -> int:
        """Optimizer steps asked, -1 where epochs decide."""
        return int(self.arguments.get("max_steps", -1))

    @property
    def batch_size(self) -> int:
        """Rows a device takes at once (``per_device_train_batch_size``)."""
        return int(self.arguments.get("per_device_train_batch_size", DEFAULT_BATCH_SIZE))

    @property
    def gradient_accumulation_steps(self) -> int:
        """Batches whose gradients make one optimizer step."""
        return int(self.arguments.get("gradient_accumulation_steps", 1))

    @property
    def packing(self) -> bool:
        """Whether rows are packed into blocks of ``max_length``; only when asked for."""
        return bool(self.arguments.get("packing", False))

    @property
    def use_cpu(self) -> bool:
        """Whether the CPU is asked for although there may be a GPU."""
        return bool(self.arguments.get("use_cpu", False))

    @property
    def completion_only_loss(self) -> bool | None:
        """Whether only completions are learnt; None lets the shape of the rows decide."""
        value = self.arguments.get("completion_only_loss")
        return None if value is None else bool(value)

    @property
    def assistant_only_loss(self) -> bool:
        """Whether every assistant turn is learnt, not only the last."""
        return bool(self.arguments.get("assistant_only_loss", False))

    @property
    def evaluates(self) -> bool:
        """Whether validation rows are wanted at all."""
        if self.arguments.get("eval_strategy") == "no":
            return False
        return not (self.eval_size == 0 and not self.eval_dataset)

    @property
    def effective_lora_alpha(self) -> float:
        """LoRA's scale; twice the rank unless told."""
        return self.lora_alpha if self.lora_alpha is not None else 2.0 * self.lora_r

    @property
    def tokenizer(self) -> str:
        """Where the tokenizer is: its own path, else the model's."""
        return self.tokenizer_name_or_path or self.model_name_or_path

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that trackers read instead of an argument."""
        return {"WANDB_PROJECT": self.wandb_project} if self.wandb_project else {}

    # -- what the libraries take -----------------------------------------------------------------------------------

    def sft_arguments(self, plan: Cadence, hardware: Hardware, *, lengths: ArrayLike | None = None) -> dict[str, Any]:
        """Keyword arguments for ``trl.SFTConfig``; see ``sightline.training.recipe.sft``."""
        from sightline.training.recipe.sft import sft_arguments

        return sft_arguments(self, plan, hardware, lengths=lengths)

    def lora_arguments(self) -> dict[str, Any] | None:
        """Keyword arguments for ``peft.LoraConfig``; None for full fine-tuning."""
        from sightline.training.recipe.sft import lora_arguments

        return lora_arguments(self)

    def model_arguments(self, hardware: Hardware) -> dict[str, Any]:
        """Keyword arguments for ``AutoModelForCausalLM.from_pretrained``."""
        from sightline.training.recipe.sft import model_arguments

        return model_arguments(self, hardware)

    def as_config(self) -> dict[str, Any]:
        """Return the recipe as plain JSON values for the journal."""
        return {
            **self.model_dump(mode="json", exclude={"arguments", "given", "notes", "source", "folder"}),
            **self.arguments,
        }


OWN_KEYS = frozenset(Recipe.model_fields) - {"arguments", "given", "notes", "source", "folder"}
"""Keys that are Sightline's (some carry TRL's name), as against the Trainer's."""

assert not OWN_KEYS & set(RENAMED)  # an alias may not hide a key
