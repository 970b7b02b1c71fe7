"""From settings to a Recipe: translate, refuse what is unknown, convert, refuse what contradicts itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from sightline.errors import RecipeError
from sightline.training.recipe.aliases import (
    CHOSEN_BY_HARDWARE,
    REFUSED,
    RENAMED,
    TRANSLATED,
    WITHOUT_EFFECT,
    all_aliases,
)
from sightline.training.recipe.coercion import coerce
from sightline.training.recipe.conflicts import refuse_contradictions
from sightline.training.recipe.settings import OWN_KEYS, Recipe
from sightline.training.recipe.trainer_fields import TrainerField, trainer_fields
from sightline.training.recipe.yaml_source import Setting, parse_scalar, read_settings

_COMMAND_LINE = "the command line"
_LISTS = ("dataset", "eval_dataset", "lora_modules_to_save")
_EXCLUSIVE = (
    {"max_steps", "num_train_epochs"},
    {"eval_steps", "evals_per_epoch"},
    {"save_steps", "saves_per_epoch"},
    {"eval_dataset", "eval_size"},
    {"resume", "overwrite"},
)
"""Keys of which a run has one."""
_NOT_FOR_USERS = frozenset(
    {"local_rank", "do_predict", "dataset_kwargs", "parallelism_config", "remove_unused_columns"}
)
"""Trainer arguments that Sightline sets itself or that only a launcher sets."""


def load_recipe(path: Path | None, overrides: Mapping[str, Any] | Sequence[str]) -> Recipe:
    """Read the file, lay the overrides over it and build the Recipe."""
    notes: list[str] = []
    settings = _canonical(read_settings(path) if path is not None else [], notes)
    _lay_over(settings, _canonical(_override_settings(overrides), notes), notes)
    fields = trainer_fields()
    _refuse_unknown(settings, fields)
    arguments = {key: coerce(setting, fields[key]) for key, setting in settings.items() if key not in OWN_KEYS}
    _refuse_out_of_range(arguments, settings)
    own = {key: _own_value(key, setting) for key, setting in settings.items() if key in OWN_KEYS}
    _imply_peft(own, settings)
    recipe = _build(own, arguments, settings, notes, path)
    refuse_contradictions(recipe, settings)
    return recipe


def _lay_over(settings: dict[str, Setting], overrides: Mapping[str, Setting], notes: list[str]) -> None:
    """Let overrides win over the file, also where the file says the same thing by another key."""
    for group in _EXCLUSIVE:
        if len(winners := group & set(overrides)) == 1:
            for loser in group & set(settings) - winners:
                notes.append(
                    f"{settings.pop(loser).key} of the recipe gives way to {next(iter(winners))} of the command line"
                )
    settings |= overrides


def _override_settings(overrides: Mapping[str, Any] | Sequence[str]) -> list[Setting]:
    """Return overrides as settings; text is read as YAML would read it."""
    if isinstance(overrides, Mapping):
        pairs: list[tuple[str, Any]] = list(overrides.items())
    else:
        pairs = list(_pairs(list(overrides)))
    return [
        Setting(key.replace("-", "_"), parse_scalar(value) if isinstance(value, str) else value, _COMMAND_LINE)
        for key, value in pairs
    ]


def _pairs(words: list[str]) -> Iterable[tuple[str, str]]:
    """``--key value``, ``--key=value`` and bare ``--flag`` as pairs."""
    i = 0
    while i < len(words):
        word = words[i]
        if not word.startswith("--") or len(word) < 3:
            raise RecipeError(f"expected `--key value` after the recipe, found {word!r}")
        key, equals, value = word[2:].partition("=")
        if not equals:
            following = words[i + 1] if i + 1 < len(words) else None
            if following is None or following.startswith("--"):
                value = "true"
            else:
                value, i = following, i + 1
        yield key, value
        i += 1


def _canonical(settings: Iterable[Setting], notes: list[str]) -> dict[str, Setting]:
    """Return settings by our own names; other tools' names translated, empty values left out."""
    found: dict[str, Setting] = {}
    for setting in settings:
        if setting.value is None:  # `key:` with nothing behind it is a key not given
            _known_name(setting)
            continue
        for name, value in _translated(setting, notes).items():
            if (earlier := found.get(name)) is not None:
                if name != "report_to" or setting.key == earlier.key:
                    both = f"{setting.key} and {earlier.key} are one setting ({name}), given twice; keep one of them"
                    raise RecipeError(f"{setting.where}: {both}")
                value = [*_as_list(earlier.value), *_as_list(value)]  # several trackers
            found[name] = Setting(setting.key, value, setting.where)
    return found


def _as_list(value: Any) -> list[Any]:
    """Return a list, of one where the value is none."""
    return value if isinstance(value, list) else [value]


def _known_name(setting: Setting) -> None:
    """Refuse an unknown key even where its value is empty."""
    if setting.key not in all_aliases() and setting.key not in OWN_KEYS and setting.key not in trainer_fields():
        raise RecipeError(_unknown_key(setting, trainer_fields()))


def _translated(setting: Setting, notes: list[str]) -> dict[str, Any]:
    """Return the settings one key stands for."""
    key, value = setting.key, setting.value
    if key in CHOSEN_BY_HARDWARE and value == "auto":
        return {}
    if key in REFUSED:
        if value not in (False, "", [], {}, "false", 0):
            raise RecipeError(f"{setting.where}: {key}: {value} is not supported: {REFUSED[key]}")
        return {}
    if key in WITHOUT_EFFECT:
        notes.append(f"{key} has no effect: {WITHOUT_EFFECT[key]}")
        return {}
    if key in TRANSLATED:
        translate, _ = TRANSLATED[key]
        if key == "early_stopping_patience":
            notes.append(
                "early_stopping_patience is not counted: a stop follows when the validation loss rose beyond its noise"
            )
        return translate(value, setting.where)
    return {RENAMED.get(key, key): value}


def _refuse_unknown(settings: Mapping[str, Setting], fields: Mapping[str, TrainerField]) -> None:
    """Refuse keys that are neither ours nor the Trainer's."""
    for name, setting in settings.items():
        if name in _NOT_FOR_USERS:
            raise RecipeError(f"{setting.where}: {setting.key} is set by Sightline itself; leave it out")
        if name not in OWN_KEYS and name not in fields:
            raise RecipeError(_unknown_key(setting, fields))


def _unknown_key(setting: Setting, fields: Mapping[str, TrainerField]) -> str:
    """Return the message for a key nobody knows, with the nearest one that exists."""
    names = sorted(OWN_KEYS | set(fields) | all_aliases())
    near = difflib.get_close_matches(setting.key.lower(), names, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]}?" if near else "docs/recipe.md lists every key"
    return f"{setting.where}: unknown key {setting.key}; {hint}"


def _own_value(name: str, setting: Setting) -> Any:
    """Return a value of one of our keys; a single name counts as a list of one."""
    value = setting.value
    if name in _LISTS and isinstance(value, str):
        return (value,)
    if name in (*_LISTS, "lora_target_modules") and isinstance(value, list):
        return tuple(value)
    if name == "lora_target_modules" and isinstance(value, str) and "," in value:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if name == "resume" and isinstance(value, str):
        where = f"{setting.where}: {setting.key}: {value!r}"
        raise RecipeError(f"{where}: a run goes on from the newest complete checkpoint of its output_dir; give true")
    if name == "eval_size" and isinstance(value, str) and value.endswith("%"):
        return float(value[:-1]) / 100 if value[:-1].replace(".", "", 1).isdigit() else value
    if name in ("model_revision", "dataset_config", "dataset_split") and isinstance(value, int | float):
        return str(value)
    return value


_POSITIVE = (
    "learning_rate",
    "num_train_epochs",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "max_length",
)
_NOT_NEGATIVE = (
    "weight_decay",
    "warmup_steps",
    "max_grad_norm",
    "eval_steps",
    "save_steps",
    "logging_steps",
    "label_smoothing_factor",
    "dataloader_num_workers",
    "seed",
)


def _refuse_out_of_range(arguments: Mapping[str, Any], settings: Mapping[str, Setting]) -> None:
    """Refuse numbers no run can be made with."""
    for key, value in arguments.items():
        if key in _POSITIVE and not value > 0:
            raise RecipeError(f"{settings[key].where}: {settings[key].key}: {value} must be above 0")
        if key in _NOT_NEGATIVE and value < 0:
            raise RecipeError(f"{settings[key].where}: {settings[key].key}: {value} must not be negative")
        if key == "max_steps" and value != -1 and value < 1:
            raise RecipeError(
                f"{settings[key].where}: max_steps: {value} must be at least 1, or -1 to let epochs decide"
            )
        if key in ("eval_steps", "logging_steps", "save_steps") and (value == 0 or (value > 1 and value != int(value))):
            raise RecipeError(
                f"{settings[key].where}: {key}: {value} must be whole steps, or a share of the run below 1"
            )


def _imply_peft(own: dict[str, Any], settings: Mapping[str, Setting]) -> None:
    """LoRA's numbers ask for LoRA; with ``use_peft: false`` beside them the recipe contradicts itself."""
    lora = [key for key in own if key.startswith("lora_") or key in ("use_rslora", "use_dora")]
    asked = [key for key in lora if own[key] not in (False, (), "")]
    if not asked:
        return
    if own.get("use_peft") is False:
        setting = settings[asked[0]]
        raise RecipeError(f"{setting.where}: {setting.key} is given but use_peft is false; leave one of them out")
    own["use_peft"] = True


def _build(
    own: dict[str, Any], arguments: dict[str, Any], settings: Mapping[str, Setting], notes: list[str], path: Path | None
) -> Recipe:
    """Make the record; pydantic's complaints become one line."""
    source = path.stem if path is not None else "run"
    for key, example in (("model_name_or_path", "models/my-base"), ("dataset", "train.jsonl")):
        if key not in own:
            where = path if path is not None else _COMMAND_LINE
            raise RecipeError(f"{where}: {key} is missing; add for example `{key}: {example}`")
    try:
        folder = str(path.parent) if path is not None else None
        given = frozenset(settings)
        return Recipe(**own, arguments=arguments, given=given, notes=tuple(notes), source=source, folder=folder)
    except ValidationError as error:
        first = error.errors()[0]
        setting = settings[str(first["loc"][0])]
        raise RecipeError(f"{setting.where}: {setting.key}: {setting.value!r}: {_plain(first)}") from None


def _plain(error: Any) -> str:
    """Put pydantic's message in our words."""
    message = str(error["msg"]).removeprefix("Input ")
    kinds = {"bool_parsing": "expected true or false", "bool_type": "expected true or false"}
    kinds |= {"float_parsing": "expected a number", "float_type": "expected a number"}
    kinds |= {
        "int_parsing": "expected a whole number",
        "int_type": "expected a whole number",
        "int_from_float": "expected a whole number",
    }
    kinds |= {"string_type": "expected text", "tuple_type": "expected a list"}
    return kinds.get(error["type"], message.replace("should", "must"))
