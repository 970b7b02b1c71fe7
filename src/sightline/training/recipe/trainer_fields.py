"""Names, types and choices of the Trainer's own arguments, read from the installed sources without importing them.

Importing ``transformers.training_args`` brings torch and takes seconds; a mistyped key should be answered at once. The
fields of ``TrainingArguments``, TRL's ``SFTConfig`` and its base class are therefore read from their source by ``ast``,
and only where that fails (a release that moved the files) are the classes imported.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sightline.errors import MissingExtra

_SOURCES = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/sft_config.py", "SFTConfig"),
)
"""Package, file and class, base class first: later definitions of a field replace earlier ones."""
_ENUM_FILES = ("training_args.py", "trainer_utils.py", "debug_utils.py")


@dataclass(frozen=True, slots=True)
class TrainerField:
    """One argument that the Trainer takes."""

    name: str
    annotation: str
    """Type as the source writes it, for example ``float | None``."""
    choices: tuple[str, ...] = ()
    """Values allowed; empty where any value of the type is."""


@cache
def trainer_fields() -> Mapping[str, TrainerField]:
    """Return every argument of the installed ``SFTConfig``, those of ``TrainingArguments`` among them, by name.

    Raises
    ------
    MissingExtra
        If transformers or TRL is not installed.
    """
    fields: dict[str, TrainerField] = {}
    try:
        for package, file, class_name in _SOURCES:
            source = _package_folder(package) / file
            for field in _class_fields(ast.parse(source.read_text(encoding="utf-8")), class_name):
                fields[field.name] = field
    except (OSError, SyntaxError, LookupError):
        return _imported_fields()
    return fields


def _package_folder(package: str) -> Path:
    """Folder of an installed package, found without importing it."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("`sightline train`", package, "train")
    return Path(next(iter(spec.submodule_search_locations)))


def _class_fields(module: ast.Module, class_name: str) -> Iterator[TrainerField]:
    """Annotated assignments of one class of a parsed module."""
    for node in module.body:
        if isinstance(node, ast.ClassDef) and node.name == class_name:
            for statement in node.body:
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    annotation = ast.unparse(statement.annotation)
                    choices = _choices(statement.value) or _enum_choices(annotation)
                    yield TrainerField(statement.target.id, annotation, choices)
            return
    raise LookupError(class_name)


def _choices(value: ast.expr | None) -> tuple[str, ...]:
    """Return the literal ``choices`` of a ``field(metadata={...})``."""
    if not isinstance(value, ast.Call):
        return ()
    for keyword in value.keywords:
        if keyword.arg == "metadata" and isinstance(keyword.value, ast.Dict):
            for key, item in zip(keyword.value.keys, keyword.value.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "choices" and isinstance(item, ast.List):
                    return tuple(str(c.value) for c in item.elts if isinstance(c, ast.Constant))
    return ()


def _enum_choices(annotation: str) -> tuple[str, ...]:
    """Values of the enumeration an annotation names."""
    enums = _enumerations()
    return next((enums[part] for part in annotation.replace(" ", "").split("|") if part in enums), ())


@cache
def _enumerations() -> dict[str, tuple[str, ...]]:
    """Return string values of each ``ExplicitEnum`` of transformers that arguments use."""
    folder = _package_folder("transformers")
    enums: dict[str, tuple[str, ...]] = {}
    for file in _ENUM_FILES:
        path = folder / file
        if not path.is_file():
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and any("Enum" in ast.unparse(base) for base in node.bases):
                enums[node.name] = tuple(
                    str(s.value.value)
                    for s in node.body
                    if isinstance(s, ast.Assign)
                    and isinstance(s.value, ast.Constant)
                    and isinstance(s.value.value, str)
                )
    return enums


def _imported_fields() -> dict[str, TrainerField]:
    """Return the same from the imported class, where the sources are not as expected."""
    try:
        from trl import SFTConfig
    except ImportError as error:
        raise MissingExtra("`sightline train`", error.name or "trl", "train") from error
    fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(SFTConfig)
    return {f.name: TrainerField(f.name, f.type if isinstance(f.type, str) else str(f.type)) for f in fields if f.init}
