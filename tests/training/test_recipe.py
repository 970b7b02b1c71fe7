"""Recipes: what is accepted, what is refused, and the words of the refusal."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sightline.errors import MissingExtra, RecipeError
from sightline.training.recipe import Recipe
from sightline.training.recipe.aliases import REFUSED, RENAMED, TRANSLATED, WITHOUT_EFFECT
from sightline.training.recipe.settings import OWN_KEYS
from sightline.training.recipe.trainer_fields import trainer_fields

BASE = "model_name_or_path: m\ndataset: rows.jsonl\n"
DOCS = Path(__file__).parents[2] / "docs" / "recipe.md"


@pytest.fixture
def load(tmp_path):
    """Write a recipe and load it."""

    def write(text: str, overrides=()) -> Recipe:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return Recipe.load(path, overrides)

    return write


def test_own_words_and_the_trainers(load):
    recipe = load(BASE + "learning_rate: 5e-3\nlora_r: 64\nweight_decay: 0.1\neval_size: 0.2\nreport_to: tensorboard\n")
    assert recipe.learning_rate == 5e-3  # PyYAML alone would read the text '5e-3'
    assert recipe.use_peft  # LoRA's numbers ask for LoRA
    assert recipe.arguments["weight_decay"] == 0.1
    assert recipe.eval_size == 0.2
    assert recipe.given == {
        "model_name_or_path", "dataset", "learning_rate", "lora_r", "use_peft", "weight_decay", "eval_size", "report_to"
    } - {"use_peft"}  # fmt: skip
    assert recipe.dataset == ("rows.jsonl",)


AXOLOTL = """
base_model: m
datasets:
  - path: a.jsonl
    type: alpaca
  - path: b.jsonl
    type: alpaca
val_set_size: 0.05
adapter: lora
lora_r: 8
lora_target_linear: true
sequence_len: 512
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 2
optimizer: adamw_torch
lr_scheduler: cosine
warmup_ratio: 0.1
train_on_inputs: false
group_by_length: true
bf16: auto
sample_packing: false
load_in_4bit: false
wandb_project:
wandb_name: run one
strict: false
evals_per_epoch: 4
saves_per_epoch: 1
"""


def test_axolotl_recipe_means_the_same(load):
    recipe = load(AXOLOTL)
    assert recipe.dataset == ("a.jsonl", "b.jsonl")
    assert recipe.dataset_format == "alpaca"
    assert (recipe.model_name_or_path, recipe.use_peft, recipe.lora_r) == ("m", True, 8)
    assert recipe.arguments["max_length"] == 512
    assert (recipe.batch_size, recipe.gradient_accumulation_steps, recipe.num_train_epochs) == (2, 4, 2.0)
    assert recipe.arguments["warmup_steps"] == 0.1
    assert recipe.arguments["train_sampling_strategy"] == "group_by_length"
    assert recipe.completion_only_loss is True
    assert recipe.arguments["run_name"] == "run one"
    assert (recipe.evals_per_epoch, recipe.saves_per_epoch) == (4, 1)
    assert any("strict" in note for note in recipe.notes)
    assert "bf16" not in recipe.given  # auto: as the hardware has it


def test_no_stays_a_word_and_yes_is_no_boolean_trap(load):
    recipe = load(BASE + "eval_strategy: no\nearly_stopping: off\nsave_strategy: no\n")
    assert recipe.arguments["eval_strategy"] == "no"
    assert recipe.arguments["save_strategy"] == "no"
    assert recipe.early_stopping is False


def test_command_line_wins(load):
    recipe = load(
        BASE + "learning_rate: 1e-4\nnum_train_epochs: 3\n", ["--learning-rate", "2e-4", "--max_steps=20", "--use_peft"]
    )
    assert recipe.learning_rate == 2e-4
    assert recipe.use_peft
    assert recipe.max_steps == 20
    assert "num_train_epochs" not in recipe.given  # 20 steps asked on the command line are 20 steps
    assert any("gives way" in note for note in recipe.notes)


def test_overrides_alone_make_a_recipe():
    recipe = Recipe.load(
        None, {"model_name_or_path": "m", "dataset": "a.jsonl", "lora_target_modules": "[q_proj, v_proj]"}
    )
    assert recipe.lora_target_modules == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("learning_rte: 1", ["line 3", "unknown key learning_rte", "learning_rate"]),
        ("lora_rank_: 1", ["unknown key lora_rank_", "lora_r"]),
        ("eval_stategy: steps", ["unknown key eval_stategy", "eval_strategy"]),
        ("micro_batchsize: 2", ["micro_batch_size"]),
        ("zzzzqqqq: 1", ["unknown key zzzzqqqq", "docs/recipe.md"]),
        ("zzzzqqqq:", ["unknown key zzzzqqqq"]),
        ("seed: 1\nseed: 2", ["line 4", "given twice", "line 3"]),
        ("lr: 1e-3\nlearning_rate: 1e-4", ["line 4", "lr", "given twice"]),
        ("use_peft: false\nadapter: lora", ["given twice"]),
        ("learning_rate: fast", ["learning_rate", "'fast'", "a number"]),
        ("learning_rate: -1", ["must be above 0"]),
        ("learning_rate: .nan", ["learning_rate", "not a number"]),
        ("seed: 1.5", ["seed", "1.5", "whole number"]),
        ("use_peft: maybe", ["use_peft", "'maybe'", "true or false"]),
        ("bf16: sometimes", ["bf16", "true or false"]),
        ("lora_dropout: 1.5", ["lora_dropout", "1.5"]),
        ("lora_r: eight", ["lora_r", "'eight'", "whole number"]),
        ("lr_scheduler_type: cosin", ["not one of", "did you mean cosine"]),
        ("optim: adam", ["not one of", "adamw_torch"]),
        ("eval_strategy: sometimes", ["no, steps, epoch"]),
        ("max_steps: 0", ["at least 1"]),
        ("eval_steps: 2.5", ["whole steps"]),
        ("warmup_ratio: 20", ["warmup_ratio", "warmup_steps"]),
        ("load_in_4bit: true", ["not quantised"]),
        ("batch_size: 8", ["per_device_train_batch_size"]),
        ("adapter: dora2", ["adapter"]),
        ("datasets:\n  - type: alpaca", ["needs a path"]),
        ("local_rank: 1", ["set by Sightline"]),
        ("resume: outputs/a/checkpoint-5", ["newest complete checkpoint"]),
    ],
)  # fmt: skip
def test_refused_with_its_reason(load, text, told):
    with pytest.raises(RecipeError) as refused:
        load(BASE + text + "\n")
    assert all(part in str(refused.value) for part in told), refused.value
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("eval_strategy: no\nload_best_model_at_end: true", ["eval_strategy", "load_best_model_at_end"]),
        ("eval_strategy: no\nearly_stopping: true", ["eval_strategy", "early_stopping"]),
        ("eval_size: 0\nevals_per_epoch: 3", ["eval_size", "evals_per_epoch"]),
        ("eval_strategy: no\nsave_strategy: best", ["eval_strategy", "save_strategy"]),
        ("eval_strategy: no\nlr_scheduler_type: reduce_lr_on_plateau", ["lr_scheduler_type"]),
        ("eval_strategy: no\neval_dataset: b.jsonl", ["eval_strategy", "eval_dataset"]),
        ("eval_steps: 10\nevals_per_epoch: 3", ["eval_steps", "evals_per_epoch"]),
        ("save_steps: 10\nsaves_per_epoch: 3", ["save_steps", "saves_per_epoch"]),
        ("eval_strategy: epoch\neval_steps: 5", ["eval_strategy", "eval_steps"]),
        ("save_strategy: epoch\nsave_steps: 5", ["save_strategy", "save_steps"]),
        ("logging_strategy: epoch\nlogging_steps: 5", ["logging_strategy", "logging_steps"]),
        ("max_steps: 5\nnum_train_epochs: 1", ["max_steps", "num_train_epochs"]),
        ("metric_for_best_model: eval_f1", ["metric_for_best_model", "eval_loss"]),
        ("metric_for_best_model: eval_loss\ngreater_is_better: true", ["greater_is_better", "lower"]),
        ("load_best_model_at_end: true\nsave_strategy: no", ["save_strategy", "load_best_model_at_end"]),
        ("load_best_model_at_end: true\nsave_strategy: epoch\neval_strategy: steps", ["save_strategy"]),
        ("load_best_model_at_end: true\nsave_steps: 30\neval_steps: 20", ["save_steps", "eval_steps", "multiple"]),
        ("bf16: true\nfp16: true", ["bf16", "fp16"]),
        ("use_cpu: true\nfp16: true", ["use_cpu", "fp16"]),
        ("gradient_checkpointing: true\nactivation_checkpointing: false", ["gradient_checkpointing"]),
        ("eval_dataset: b.jsonl\neval_size: 0.1", ["eval_dataset", "eval_size"]),
        ("completion_only_loss: true\ndataset_format: text", ["completion_only_loss", "dataset_format"]),
        ("assistant_only_loss: true\ndataset_format: alpaca", ["assistant_only_loss", "dataset_format"]),
        ("assistant_only_loss: true\ncompletion_only_loss: false", ["assistant_only_loss", "completion_only_loss"]),
        ("packing: true\ngroup_by_length: true", ["packing", "group_by_length"]),
        ("packing: true\npacking_strategy: wrapped\ncompletion_only_loss: true", ["packing", "packing_strategy"]),
        ("packing: true\nattn_implementation: sdpa", ["packing", "attn_implementation"]),
        ("resume: true\noverwrite: true", ["resume", "overwrite"]),
        ("keep_by: gold", ["keep_by", "gold: FILE"]),
        ("truncation_mode: keep_end", ["truncation_mode"]),
        ("lr_scheduler_type: constant\nwarmup_steps: 10", ["lr_scheduler_type", "constant_with_warmup"]),
        ("lora_r: 8\nuse_peft: false", ["lora_r", "use_peft"]),
    ],
)  # fmt: skip
def test_contradictions_are_refused_with_their_reason(load, text, keys):
    with pytest.raises(RecipeError) as refused:
        load(BASE + text + "\n")
    assert all(key in str(refused.value) for key in keys), refused.value
    assert "line" in str(refused.value)


def test_what_is_only_a_default_never_contradicts(load):
    load(BASE + "eval_strategy: no\n")  # early stopping is on by default
    load(BASE + "save_strategy: best\nload_best_model_at_end: true\n")
    load(BASE + "save_steps: 40\neval_steps: 20\nload_best_model_at_end: true\n")
    load(BASE + "lr_scheduler_type: constant\nwarmup_steps: 0\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("   \n\n", "is empty"),
        ("- a\n- b\n", "found a list"),
        ("just words\n", "found plain text"),
        ("a: [1, 2\n", "not valid YAML"),
        ("a: 1\n\tb: 2\n", "tab"),
        ("model_name_or_path: a: b\n", "quotes"),
        ("a: &x [1]\nb: *x\n", "alias *x is not supported"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("[" * 3000 + "]" * 3000 + "\n", "nested too deeply"),
        ("? [1, 2]\n: 3\n", "plain word"),
        ("a: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
        ("model_name_or_path: m\n", "dataset is missing"),
        ("dataset: m\n", "model_name_or_path is missing"),
        ("# nothing but a comment\n", "found nothing"),
    ],
)
def test_broken_yaml_is_answered_in_one_line(load, text, told):
    with pytest.raises(RecipeError, match=r"recipe\.yaml") as refused:
        load(text)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_aliases_do_not_unfold(load):
    """The billion laughs: refused before anything is built."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(RecipeError, match="alias"):
        load("\n".join(lines) + "\n")


def test_files_that_are_no_recipe(tmp_path):
    with pytest.raises(RecipeError, match="no such file"):
        Recipe.load(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="is a folder"):
        Recipe.load(tmp_path)
    (tmp_path / "data.yaml").write_bytes(b"x" * 2_000_000)
    with pytest.raises(RecipeError, match="Is this the data"):
        Recipe.load(tmp_path / "data.yaml")
    (tmp_path / "latin.yaml").write_bytes("model: gr\xfcn\n".encode("latin-1"))
    with pytest.raises(RecipeError, match="UTF-8"):
        Recipe.load(tmp_path / "latin.yaml")


@pytest.mark.parametrize("words", [["learning_rate", "1"], ["--"], ["--a", "b", "c"]])
def test_command_line_that_is_no_option(words):
    with pytest.raises(RecipeError):
        Recipe.load(None, words)


def test_trainer_fields_are_those_of_the_class():
    """Read from the sources, without an import, the arguments are those of the installed class."""
    import dataclasses

    from trl import SFTConfig

    real = {field.name for field in dataclasses.fields(SFTConfig) if field.init}
    assert real == set(trainer_fields())
    assert "cosine" in trainer_fields()["lr_scheduler_type"].choices
    assert "group_by_length" in trainer_fields()["train_sampling_strategy"].choices


def test_a_typo_is_answered_without_torch(tmp_path):
    """Neither torch nor transformers is imported to refuse a key."""
    (tmp_path / "r.yaml").write_text(BASE + "lerning_rate: 1\n")
    code = (
        "import sys\nfrom sightline.errors import RecipeError\nfrom sightline.training.recipe import Recipe\n"
        f"try: Recipe.load({str(tmp_path / 'r.yaml')!r})\nexcept RecipeError as e: print(e)\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'numpy') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "did you mean learning_rate" in out
    assert out.splitlines()[-1] == "[]"


def test_missing_extra_names_the_pip_line(monkeypatch):
    from sightline.training import prepare
    from sightline.training.recipe import trainer_fields as module

    module.trainer_fields.cache_clear()
    module._enumerations.cache_clear()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    try:
        with pytest.raises(MissingExtra, match=r"pip install 'sightline\[train\]'"):
            Recipe.load(None, {"model_name_or_path": "m", "dataset": "d"})
    finally:
        module.trainer_fields.cache_clear()
        module._enumerations.cache_clear()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="torch"):
        prepare.require_train_extra()


def test_aliases_lead_to_known_keys():
    known = OWN_KEYS | set(trainer_fields())
    assert set(RENAMED.values()) <= known
    assert not set(TRANSLATED) & set(RENAMED)
    assert not (set(WITHOUT_EFFECT) | set(REFUSED)) & set(RENAMED)


def test_every_key_and_alias_is_documented():
    page = DOCS.read_text(encoding="utf-8")
    keys = [*OWN_KEYS, *RENAMED, *TRANSLATED, *WITHOUT_EFFECT, *REFUSED]
    missing = [key for key in keys if f"`{key}`" not in page]
    assert not missing


def test_environment_of_a_tracker(load):
    recipe = load(BASE + "wandb_project: mine\nuse_tensorboard: true\n")
    assert recipe.arguments["report_to"] == ["wandb", "tensorboard"]
    assert recipe.environment == {"WANDB_PROJECT": "mine"}
