"""Text to pretrain the demo's base model on, and the text kept back from it.

A document is one top-level function or class: the names and docstrings of all it holds, with the comments between
them; then the topics of the language reference. Every paragraph whose words fall to validation or gold by
`dataset.split_of` is left out, wherever it stands, and so is every paragraph nearly equal to one of the demo's
validation or gold texts. What the base model has seen can therefore be told from the text alone, on any Python.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from sightline.demo.dataset import NEAR_DUPLICATE, labelled_texts, normalised, split_of, summary_of
from sightline.demo.near_duplicates import similar_pairs
from sightline.demo.stdlib_text import docstrings, read_module, reference_topics, source_files, stdlib_root

#: Top-level folders left out: tests, applications and tables that distributions leave out too; topics are read on
#: their own.
LEFT_OUT = frozenset({"test", "idlelib", "lib2to3", "pydoc_data", "turtledemo", "msilib"})
#: Comment blocks below this many characters are labels, not prose.
FEWEST_COMMENT_CHARACTERS = 40
#: Paragraphs for the forgetting check have between so many characters.
FORGETTING_CHARACTERS = (80, 700)
#: At most so many of them.
MOST_FORGETTING = 300


@dataclass(frozen=True, slots=True)
class Document:
    """A list of paragraphs that belong together."""

    source: str
    """File it comes from, relative to the library, or ``topics/NAME``."""
    paragraphs: tuple[str, ...]

    @property
    def text(self) -> str:
        """The paragraphs with an empty line between two."""
        return "\n\n".join(self.paragraphs)


def pretraining_documents(root: Path | None = None) -> list[Document]:
    """All documents that the base model may see, in file order.

    Parameters
    ----------
    root : Path, optional
        Folder of the standard library; the running Python's by default.

    Raises
    ------
    DataError
        If this Python comes without the sources of its library.
    """
    root = root or stdlib_root()
    documents = list(_documents(root))
    seen_as_rows = _near_held_out_rows(root, [paragraph for document in documents for paragraph in document.paragraphs])
    kept = (
        Document(document.source, tuple(p for p in document.paragraphs if not is_held_out(p) and p not in seen_as_rows))
        for document in documents
    )
    return [document for document in kept if document.paragraphs]


def held_out_documents(root: Path | None = None) -> list[str]:
    """Docstring paragraphs and comments that the base model has not seen, in file order, each once."""
    root = root or stdlib_root()
    held_out = (p for document in _documents(root) for p in document.paragraphs if is_held_out(p))
    return list(dict.fromkeys(held_out))


def forgetting_text(root: Path | None = None) -> list[str]:
    """Paragraphs of general prose that neither the base model nor a fine-tune of the demo has seen.

    Their loss before and after a fine-tune says how much of its language the model has lost.

    Returns
    -------
    list of str
        At most `MOST_FORGETTING` paragraphs of the language reference (of docstrings, on a Python that leaves the
        reference out).

    Raises
    ------
    DataError
        If this Python comes without the sources of its library.
    """
    root = root or stdlib_root()
    topics = [p for document in _topic_documents(root) for p in document.paragraphs if is_held_out(p)]
    shortest, longest = FORGETTING_CHARACTERS
    long_enough = [p for p in dict.fromkeys(topics or held_out_documents(root)) if shortest <= len(p) <= longest]
    rows = {normalised(text.summary) for text in labelled_texts(root)}
    return [p for p in long_enough if normalised(summary_of(p)) not in rows][:MOST_FORGETTING]


def is_held_out(paragraph: str) -> bool:
    """Whether the base model was kept from a paragraph."""
    return split_of(summary_of(_without_name(paragraph))) != "train"


def _documents(root: Path) -> Iterator[Document]:
    """Documents of every module of the library, then those of the language reference."""
    for entry in sorted(root.iterdir(), key=lambda path: path.name):
        if entry.name in LEFT_OUT or not (entry.suffix == ".py" or (entry / "__init__.py").is_file()):
            continue
        for file in source_files(entry):
            yield from _module_documents(file, file.relative_to(root).as_posix())
    yield from _topic_documents(root)


def _module_documents(file: Path, source: str) -> Iterator[Document]:
    """One document for each top-level definition of a file that says something."""
    parsed = read_module(file)
    if parsed is None:
        return
    text, tree = parsed
    pieces: list[tuple[int, int, list[str]]] = []  # (line of the top-level definition, line, paragraphs)
    for doc in docstrings(tree, file.stem):
        first, *rest = _paragraphs(doc.text) or [""]
        pieces.append((doc.top, doc.line, [f"{doc.signature}: {first}", *rest]))
    starts = sorted(node.lineno for node in tree.body)
    for line, comment in _comments(text):
        pieces.append((max((start for start in starts if start <= line), default=0), line, [comment]))
    for _, members in groupby(sorted(pieces, key=lambda piece: piece[:2]), key=lambda piece: piece[0]):
        yield Document(source, tuple(paragraph for member in members for paragraph in member[2]))


def _topic_documents(root: Path) -> Iterator[Document]:
    """One document for each topic of the language reference."""
    for topic, text in reference_topics(root).items():
        yield Document(f"topics/{topic}", tuple(_paragraphs(text)))


def _paragraphs(text: str) -> list[str]:
    """Parts between empty lines, without their outer blank space."""
    return [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """Blocks of whole-line comments: their first line's number and their text."""
    block: list[str] = []
    for number, line in enumerate([*source.splitlines(), ""], start=1):
        if line.lstrip().startswith("#"):
            block.append(line.strip().lstrip("#").strip())
            continue
        text = "\n".join(block).strip("-=*# \n")
        if len(text) >= FEWEST_COMMENT_CHARACTERS:
            yield number - len(block), text
        block = []


def _without_name(paragraph: str) -> str:
    """Take off the ``name(arguments): `` that stands before a docstring's first paragraph."""
    return re.sub(r"^(class )?\w+(\([\w, *]*\))?: ", "", paragraph, count=1)


def _near_held_out_rows(root: Path, paragraphs: Iterable[str]) -> set[str]:
    """Paragraphs nearly equal to a validation or gold text of the demo."""
    rows = [text.summary for text in labelled_texts(root) if split_of(text.summary) != "train"]
    others = list(dict.fromkeys(paragraphs))
    words = [frozenset(normalised(summary_of(_without_name(text))).split()) for text in (*rows, *others)]
    n = len(rows)
    return {others[i - n] for i, j in similar_pairs(words, NEAR_DUPLICATE) if j < n <= i}
