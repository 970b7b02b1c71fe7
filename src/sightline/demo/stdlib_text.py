"""Text of the running Python's standard library, read from its sources and never imported.

Importing a module can run code, need an optional C library or open a window; parsing its source cannot. So docstrings
and comments come from `ast` and the source lines, and a module that this Python does not bring along is left out.
"""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sightline.errors import DataError

#: Folders of the standard library without text of their own worth reading: tests, bundled third-party code, installed
#: packages.
SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "ensurepip", "__pycache__"}
)


@dataclass(frozen=True, slots=True)
class Docstring:
    """One docstring and what it belongs to."""

    name: str
    """Name of the function or class; of the module itself for a module's docstring."""
    signature: str
    """``name(argument, …)`` for a function, ``class name`` for a class, the name for a module."""
    text: str
    """The docstring as `inspect.cleandoc` gives it."""
    line: int
    """First line of the definition in its file, from 1 (0 for a module's docstring)."""
    top: int
    """Line of the top-level definition that holds it (0 for a module's docstring)."""


def stdlib_root() -> Path:
    """Folder of the running Python's standard library sources.

    Raises
    ------
    DataError
        If this Python has its library in an archive or without sources (embedded and frozen builds).
    """
    root = Path(sysconfig.get_path("stdlib"))
    if not (root / "argparse.py").is_file():
        raise DataError(
            f"{root}: no sources of the standard library (argparse.py is not there); the demo makes its rows "
            "from them: use a Python that brings its .py files, such as one from python.org, a Linux distribution, "
            "uv or conda"
        )
    return root


def source_files(path: Path) -> list[Path]:
    """Python files of one module or package, sorted; none if `path` is not there.

    Parameters
    ----------
    path : Path
        A ``.py`` file or the folder of a package.
    """
    if path.is_file():
        return [path]
    files = (file for file in path.rglob("*.py") if not SKIPPED_FOLDERS.intersection(file.relative_to(path).parts))
    return sorted(files, key=lambda file: file.as_posix())


def read_module(path: Path) -> tuple[str, ast.Module] | None:
    """Source text and syntax tree of one file; None if it is not UTF-8 or not valid for this Python.

    The library ships a few files that are broken on purpose, as data for its own tools.
    """
    try:
        source = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in old modules: not ours to report
            return source, ast.parse(source)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError):
        return None


def docstrings(tree: ast.Module, stem: str) -> Iterator[Docstring]:
    """Docstrings of a module in file order: its own, its classes', its functions', nested ones included.

    Parameters
    ----------
    tree : ast.Module
        The parsed module.
    stem : str
        Name to give to the module itself.
    """
    if text := ast.get_docstring(tree):
        yield Docstring(name=stem, signature=stem, text=text, line=0, top=0)
    for node in tree.body:
        yield from _docstrings_below(node, top=node.lineno)


def _docstrings_below(node: ast.AST, top: int) -> Iterator[Docstring]:
    """Docstrings of a statement and of the statements it holds."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (text := ast.get_docstring(node)):
        yield Docstring(name=node.name, signature=_signature(node), text=text, line=node.lineno, top=top)
    for child in getattr(node, "body", []):
        if isinstance(child, ast.stmt):
            yield from _docstrings_below(child, top)
    for field in ("orelse", "finalbody", "handlers"):
        for child in getattr(node, field, []):
            if isinstance(child, ast.stmt | ast.ExceptHandler):
                yield from _docstrings_below(child, top)


def _signature(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Name and argument names, without defaults and annotations."""
    if isinstance(node, ast.ClassDef):
        return f"class {node.name}"
    arguments = node.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    if arguments.vararg:
        names.append(f"*{arguments.vararg.arg}")
    names += [argument.arg for argument in arguments.kwonlyargs]
    if arguments.kwarg:
        names.append(f"**{arguments.kwarg.arg}")
    return f"{node.name}({', '.join(names)})"


def reference_topics(root: Path | None = None) -> dict[str, str]:
    """Topics of the language reference that ``help()`` shows; none if this Python leaves them out.

    Parameters
    ----------
    root : Path, optional
        Folder of the standard library; the running Python's by default.
    """
    parsed = read_module((root or stdlib_root()) / "pydoc_data" / "topics.py")
    if parsed is None:
        return {}
    for node in parsed[1].body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            return {str(topic): str(text) for topic, text in sorted(topics.items())}
    return {}
