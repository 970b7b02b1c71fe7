"""A flat YAML file as settings that remember their line.

Scalars follow YAML 1.2: only ``true`` and ``false`` are booleans, so ``eval_strategy: no`` stays the word it is, and
``1e-4`` is a number. Aliases and anchors are refused: a recipe needs none, and they are how a small file unfolds into
a huge one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sightline.errors import RecipeError

MAX_BYTES = 200_000
MAX_DEPTH = 20


@dataclass(frozen=True, slots=True)
class Setting:
    """One key as the user gave it."""

    key: str
    value: Any
    where: str
    """Where it stands, for a message: ``config.yaml, line 4`` or ``the command line``."""


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":float", ":int", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+.0123456789"),
)
# PyYAML reads a leading 0 as octal; YAML 1.2 does not
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(str(node.value)))


def read_settings(path: Path) -> list[Setting]:
    """Read the top-level keys of a YAML recipe in their order.

    Raises
    ------
    RecipeError
        If the file is missing, too large, no UTF-8, no YAML mapping, uses aliases, or gives a key twice.
    """
    text = _read_text(path)
    try:
        _refuse_traps(path, text)
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            return _settings(path, loader, root)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else f"{path}"
        what = " ".join(part for part in (error.problem, f"({error.context})" if error.context else None) if part)
        raise RecipeError(f"{where}: not valid YAML: {what}{_yaml_hint(text, mark)}") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise RecipeError(f"{path}: a value cannot be read: {error}") from None


def parse_scalar(text: str) -> Any:
    """Read one value of the command line as YAML would: a number, a boolean, a list ``[a, b]``, else text."""
    try:
        _refuse_traps(Path("-"), text)
        return yaml.load(text, _Loader)  # a SafeLoader
    except (yaml.YAMLError, RecipeError, ValueError):
        return text


def _read_text(path: Path) -> str:
    """Return the file's text, within bounds."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise RecipeError(f"{path} is a folder; a recipe is a YAML file")
        if size > MAX_BYTES:
            raise RecipeError(f"{path} has {size:,} bytes; a recipe is a short YAML file. Is this the data?")
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; a recipe is a YAML file such as `model_name_or_path: …`") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start}); save the recipe as UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not text.strip():
        raise RecipeError(f"{path} is empty; a recipe needs at least `model_name_or_path:` and `dataset:`")
    return text


def _refuse_traps(path: Path, text: str) -> None:
    """Refuse ``*alias`` anywhere, and nesting that only costs time."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise RecipeError(
                f"{path}, line {line}: nested too deeply for a recipe; keys are flat: `learning_rate: 2e-4`"
            )
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise RecipeError(
                f"{path}, line {line}: YAML alias *{event.anchor} is not supported in a recipe; write the value out"
            )


def _settings(path: Path, loader: _Loader, root: yaml.Node | None) -> list[Setting]:
    """Return settings of the composed document."""
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None else "a list" if isinstance(root, yaml.SequenceNode) else "plain text"
        raise RecipeError(f"{path}: expected lines of `key: value`, found {found}")
    settings: list[Setting] = []
    lines: dict[str, int] = {}
    for key_node, value_node in root.value:
        line = key_node.start_mark.line + 1
        key = key_node.value
        if not isinstance(key_node, yaml.ScalarNode) or not isinstance(key, str):
            raise RecipeError(f"{path}, line {line}: a key must be a plain word")
        if key in lines:
            raise RecipeError(
                f"{path}, line {line}: {key} is given twice, first on line {lines[key]}; keep one of them"
            )
        lines[key] = line
        settings.append(Setting(key, _construct(path, loader, value_node), f"{path}, line {line}"))
    return settings


def _construct(path: Path, loader: _Loader, node: yaml.Node) -> Any:
    """Return a node as plain Python values; nested mappings may not repeat a key either."""
    if not isinstance(node, yaml.ScalarNode) and not node.tag.endswith((":map", ":seq")):
        line = node.start_mark.line + 1 if node.start_mark else 1
        raise RecipeError(f"{path}, line {line}: not valid YAML for a recipe: the tag {node.tag} makes no plain value")
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in result:
                raise RecipeError(f"{path}, line {key_node.start_mark.line + 1}: {key} is given twice")
            result[key] = _construct(path, loader, value_node)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(path, loader, item) for item in node.value]
    return loader.construct_object(node)


def _yaml_hint(text: str, mark: yaml.Mark | None) -> str:
    """Return what usually is wrong on such a line."""
    if mark is None:
        return ""
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "; the line begins with a tab, YAML wants spaces"
    if re.search(r":\s.*:\s", line):
        return "; a value that holds a colon needs quotes"
    return ""
