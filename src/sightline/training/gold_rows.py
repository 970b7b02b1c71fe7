"""Gold sets and general texts from files, in every shape that training rows have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sightline.errors import DataError
from sightline.gold.goldset import GoldSet, read_gold
from sightline.gold.tokens import Template
from sightline.training.rows.chat import chat_template
from sightline.training.rows.files import read_records
from sightline.training.rows.loading import local_files
from sightline.training.rows.shapes import Columns, to_examples


def load_gold(path: Path) -> GoldSet:
    """Read a gold set from JSONL, JSON, CSV, TSV or Parquet.

    Raises
    ------
    DataError
        If it cannot be read; the message names file and line.
    """
    return read_gold(read_records(path), str(path), prompt_of=_prompt_of_other_shapes)


def find_gold(source: str, base: Path | None = None) -> Path:
    """Return the file that a recipe's ``gold`` names, also beside the recipe.

    Raises
    ------
    DataError
        If it is no single local file.
    """
    files = local_files(source, base)
    if len(files) != 1:
        found = "no such file" if not files else f"{len(files)} files"
        raise DataError(f"gold: {source}: {found}; a gold set is one local file of prompts and references")
    return files[0]


def general_texts(named: str) -> tuple[str, ...]:
    """Return the texts of the forgetting check: a file's, those that come with Sightline (``embedded``), or ``none``.

    Raises
    ------
    DataError
        If the file cannot be read or holds no text.
    """
    if named == "none":
        return ()
    if named != "embedded":
        return load_texts(Path(named))
    from sightline.demo import forgetting_text

    return tuple(forgetting_text())


def load_texts(path: Path) -> tuple[str, ...]:
    """Read a general text: the ``text`` column of rows, or a plain file whose paragraphs stand apart.

    Raises
    ------
    DataError
        If it cannot be read or holds no text.
    """
    if path.suffix.lower() in (".txt", ".md", ".rst"):
        try:
            written = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from None
        texts = [part.strip() for part in written.split("\n\n")]
    else:
        texts = [_only_text(record, where) for record, where in read_records(path)]
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError(f"{path}: holds no text for the forgetting check")
    return tuple(texts)


def template_named(named: object) -> Template:
    """Return the chat template that a recipe names; the tokenizer's own where it names none.

    Raises
    ------
    ModelError
        If there is no such template.
    """
    if not isinstance(named, str) or named == "tokenizer_default":
        return Template()
    return Template(chat_template(named, None))


def _prompt_of_other_shapes(record: Mapping[str, Any], where: str) -> str | None:
    """Make the prompt of Alpaca's or question columns by the templates of training."""
    keys = {"instruction": "output", "question": "answer"}
    answer = next((column for key, column in keys.items() if key in record), None)
    if answer is None:
        return None
    whole = {**record, answer: "-"}
    example = next(iter(to_examples([(whole, where)], Columns())))
    return example.prompt


def _only_text(record: Mapping[str, Any], where: str) -> str:
    for column in ("text", "content", "completion", "prompt"):
        if isinstance(record.get(column), str):
            return str(record[column])
    raise DataError(f"{where}: no column text (columns: {', '.join(map(str, record))})")
