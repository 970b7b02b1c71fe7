"""The demo's rows: a docstring, and the module of the standard library that it comes from.

A row's prompt is a function's or class's name with the first paragraph of its docstring, its completion the module.
The rows are made when asked for, from the sources of the Python that runs, in about two seconds and without torch.
Every text goes to training, validation or the gold set by a hash of its own words, so the three never share a text,
whatever the Python; of texts that are nearly equal only one is kept.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from sightline.demo.near_duplicates import near_duplicate_groups
from sightline.demo.stdlib_text import docstrings, read_module, source_files, stdlib_root
from sightline.errors import DataError

#: Module -> where its sources lie. Those of the library with well over thirty docstrings left in CPython 3.11, 3.12
#: and 3.13, without `tkinter` and `distutils`, which Linux distributions leave out; pure Python twins stand in for C
#: modules.
MODULES: dict[str, tuple[str, ...]] = {
    "asyncio": ("asyncio",),
    "codecs": ("codecs.py", "encodings"),
    "collections": ("collections", "_collections_abc.py"),
    "configparser": ("configparser.py",),
    "datetime": ("datetime.py", "_pydatetime.py"),
    "decimal": ("_pydecimal.py",),
    "doctest": ("doctest.py",),
    "email": ("email",),
    "enum": ("enum.py",),
    "http": ("http",),
    "imaplib": ("imaplib.py",),
    "importlib": ("importlib",),
    "inspect": ("inspect.py",),
    "io": ("_pyio.py",),
    "ipaddress": ("ipaddress.py",),
    "logging": ("logging",),
    "mailbox": ("mailbox.py",),
    "multiprocessing": ("multiprocessing",),
    "pathlib": ("pathlib.py", "pathlib"),
    "pydoc": ("pydoc.py",),
    "statistics": ("statistics.py",),
    "tarfile": ("tarfile.py",),
    "threading": ("threading.py",),
    "turtle": ("turtle.py",),
    "typing": ("typing.py",),
    "unittest": ("unittest",),
    "urllib": ("urllib",),
    "wsgiref": ("wsgiref",),
    "xml": ("xml",),
    "zipfile": ("zipfile.py", "zipfile"),
}
#: A module keeps at most this many texts, so that the largest is not the answer to guess.
MOST_PER_MODULE = 150
#: A prompt's text is cut at the last whole word below this many characters.
MOST_CHARACTERS = 180
#: Fewer distinct words say too little about a module.
FEWEST_WORDS = 3
#: Word sets sharing this much (Jaccard) are nearly equal texts.
NEAR_DUPLICATE = 0.7
#: Share of the texts in the validation set and in the gold set, in percent.
VALIDATION_PERCENT = 8
GOLD_PERCENT = 10
#: Rows of the training set that is too small on purpose.
FEW_ROWS = 200
#: With fewer rows than this the demo shows nothing.
FEWEST_ROWS = 600

#: What a prompt ends in. Closing in ">" before a letter, no token spans prompt and completion.
PROMPT_END = "\nmodule>"


@dataclass(frozen=True, slots=True)
class LabelledText:
    """One text and the module it comes from."""

    module: str
    name: str
    """The function or class that the text documents."""
    summary: str
    """First paragraph of the docstring on one line, at most `MOST_CHARACTERS` characters."""

    @property
    def prompt(self) -> str:
        """What the model is given."""
        return f"{self.name}: {self.summary}{PROMPT_END}"


@dataclass(frozen=True, slots=True)
class DemoData:
    """Rows of the demo; no text stands in two of `train`, `validation` and `gold`, not even nearly."""

    train: list[dict[str, str]]
    """``prompt`` and ``completion``, in the seed's order."""
    few: list[dict[str, str]]
    """A seeded sample of `train`, too small to learn from without memorising."""
    validation: list[dict[str, str]]
    """``prompt`` and ``completion``."""
    gold: list[dict[str, object]]
    """``prompt``, ``references`` (a list of one) and ``group`` (the module)."""


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """Where `write_demo_data` put the rows."""

    train: Path
    few: Path
    validation: Path
    gold: Path


def demo_rows(seed: int = 0) -> DemoData:
    """Make the demo's rows from the running Python's standard library.

    Parameters
    ----------
    seed : int
        Chooses the order of the training rows and which of them are the few. Validation and gold set do not depend on
        it: a text's place follows from its words, because the base model was pretrained without those two.

    Returns
    -------
    DemoData

    Raises
    ------
    DataError
        If this Python comes without the sources of its library, or with too few of the modules.
    """
    texts = labelled_texts(stdlib_root())
    parts: dict[str, list[LabelledText]] = {"train": [], "validation": [], "gold": []}
    for text in texts:
        parts[split_of(text.summary)].append(text)
    chooser = random.Random(seed)
    train = parts["train"]
    chooser.shuffle(train)
    return DemoData(
        train=[_row(text) for text in train],
        few=[_row(text) for text in chooser.sample(train, min(FEW_ROWS, len(train)))],
        validation=[_row(text) for text in parts["validation"]],
        gold=[{"prompt": text.prompt, "references": [text.module], "group": text.module} for text in parts["gold"]],
    )


def write_demo_data(folder: Path, seed: int = 0) -> DemoFiles:
    """Write the demo's rows as JSON lines: ``train``, ``few``, ``validation`` and ``gold`` with the suffix ``.jsonl``.

    Parameters
    ----------
    folder : Path
        Made if it is not there; files of these names in it are replaced.
    seed : int
        As for `demo_rows`.

    Raises
    ------
    DataError
        As for `demo_rows`, and if the folder cannot be written.
    """
    data = demo_rows(seed)
    files = DemoFiles(*(Path(folder) / f"{part}.jsonl" for part in ("train", "few", "validation", "gold")))
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        _write_jsonl(files.train, data.train)
        _write_jsonl(files.few, data.few)
        _write_jsonl(files.validation, data.validation)
        _write_jsonl(files.gold, data.gold)
    except OSError as error:
        raise DataError(f"{folder}: cannot write the demo's rows here ({error.strerror or error})") from error
    return files


@lru_cache(maxsize=2)
def labelled_texts(root: Path) -> tuple[LabelledText, ...]:
    """All texts of the demo's modules, one of each kind of wording, sorted by module and wording.

    A wording found in several modules (``Return repr(self).``) has no answer and is left out.

    Raises
    ------
    DataError
        If too few texts are left.
    """
    found = list(_summaries(root))
    kept: list[LabelledText] = []
    for group in near_duplicate_groups([normalised(text.summary).split() for text in found], NEAR_DUPLICATE):
        members = [found[i] for i in group]
        if len({text.module for text in members}) == 1:
            kept.append(min(members, key=lambda text: (_order(text.summary), text.name)))
    texts = sorted(_capped(kept), key=lambda text: (text.module, _order(text.summary)))
    if len(texts) < FEWEST_ROWS:
        raise DataError(
            f"{root}: {len(texts)} docstrings in {len({text.module for text in texts})} of {len(MODULES)} modules, "
            f"the demo needs {FEWEST_ROWS}: this Python's standard library is incomplete "
            "(on Debian and Ubuntu: apt install libpython3-stdlib)"
        )
    return tuple(texts)


def split_of(text: str) -> str:
    """Which split a text belongs to: ``"gold"``, ``"validation"`` or ``"train"``, from a hash of its words alone."""
    place = int(_order(text)[:8], 16) % 100
    if place < GOLD_PERCENT:
        return "gold"
    return "validation" if place < GOLD_PERCENT + VALIDATION_PERCENT else "train"


def normalised(text: str) -> str:
    """Words of a text: lower case, letters only, single blanks between. Texts with equal words count as equal."""
    return " ".join(re.findall(r"[^\W\d_]+", text.lower()))


def summary_of(docstring: str) -> str:
    """First paragraph of a docstring on one line, cut at a whole word."""
    paragraph = " ".join(re.split(r"\n\s*\n", docstring.strip(), maxsplit=1)[0].split())
    if len(paragraph) <= MOST_CHARACTERS:
        return paragraph
    return paragraph[: MOST_CHARACTERS + 1].rsplit(" ", 1)[0][:MOST_CHARACTERS]


def _summaries(root: Path) -> Iterable[LabelledText]:
    """Every summary of the demo's modules with enough words, in file order."""
    for module, places in MODULES.items():
        for place in places:
            for file in source_files(root / place):
                parsed = read_module(file)
                for doc in docstrings(parsed[1], file.stem) if parsed else ():
                    text = LabelledText(module, doc.name, summary_of(doc.text))
                    if len(set(normalised(text.summary).split())) >= FEWEST_WORDS:
                        yield text


def _capped(texts: Sequence[LabelledText]) -> Iterable[LabelledText]:
    """At most `MOST_PER_MODULE` texts of each module, chosen by their hash."""
    by_module: dict[str, list[LabelledText]] = defaultdict(list)
    for text in texts:
        by_module[text.module].append(text)
    for members in by_module.values():
        # The tail of the hash, because its head decides the split.
        yield from sorted(members, key=lambda text: _order(text.summary)[::-1])[:MOST_PER_MODULE]


def _order(text: str) -> str:
    """Hash of a text's words, hexadecimal: the same on every machine and Python."""
    return hashlib.sha256(normalised(text).encode()).hexdigest()


def _row(text: LabelledText) -> dict[str, str]:
    """Prompt and completion."""
    return {"prompt": text.prompt, "completion": text.module}


def _write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """One JSON object a line, UTF-8."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
