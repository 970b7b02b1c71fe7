"""AnswerFile: ``gold.jsonl``, one answer a line, written as it is given; what is there is not asked for again.

An answer's key is a hash of everything it follows from: the model's weights, the prompt, when answers end. So a killed
judge goes on, another metric needs no new answers, and a changed model never gets an old answer.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from sightline.errors import UsageError
from sightline.gold.generation import Settings
from sightline.gold.tokens import Template
from sightline.runs.gold import GoldExample, Prediction

log = logging.getLogger(__name__)

_WHOLE_BYTES = 64 << 20
"""Weight files up to this size are hashed whole, of larger ones samples."""
_BEGINNING = b'{"key":"'
_SAMPLES, _SAMPLE_BYTES = 64, 256 << 10


class AnswerFile:
    """Answers on disk.

    Parameters
    ----------
    path : Path or None
        The file, made with its folder when the first answer comes; None to keep nothing.

    Raises
    ------
    UsageError
        If the file is there and holds something else than answers.

    Notes
    -----
    A disk that is full or read-only ends the writing with a warning, not the judging.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._file: int | None = None
        self._known = dict(_read(path)) if path is not None and path.exists() else {}

    def known(self, keys: Mapping[str, str]) -> dict[str, Prediction]:
        """Return the answers that are there, by example id, given the key of each id."""
        return {id: self._known[key] for id, key in keys.items() if key in self._known}

    def add(self, model: str, key: str, example: GoldExample, prediction: Prediction) -> None:
        """Append an answer."""
        self._known[key] = prediction
        self._append(_line(model, key, example, prediction))

    def finish(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Replace the file by the answers of this judge, with their scores."""
        self.close()
        if self.path is None:
            return
        beside = self.path.with_name(self.path.name + ".new")
        try:
            with beside.open("wb") as file:
                for line in lines:
                    file.write(_encoded(line))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: Mapping[str, Any]) -> None:
        if self.path is None:
            return
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
                size = os.fstat(self._file).st_size
                if size and os.pread(self._file, 1, size - 1) != b"\n":  # a killed judge's last line
                    os.write(self._file, b"\n")
            os.write(self._file, _encoded(line))
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.warning("%s: answers are not kept (%s); judging goes on", self.path, error.strerror or error)
        self.path = None


def answer_line(
    model: str, key: str, example: GoldExample, prediction: Prediction, scores: Mapping[str, float]
) -> dict[str, Any]:
    """Return an answer as the finished file holds it."""
    return {**_line(model, key, example, prediction), "scores": dict(scores)}


def answer_keys(
    examples: Iterable[GoldExample], model_digest: str, settings: Settings, template: Template | None
) -> dict[str, str]:
    """Return the key of each example's answer by a model.

    Parameters
    ----------
    examples : iterable of GoldExample
    model_digest : str
        Hash of the weights that answer, and of the tokenizer.
    settings : Settings
        When answers end.
    template : Template or None
        How conversations become text.
    """
    how = (model_digest, settings.max_new_tokens, sorted(settings.end_ids), settings.stop, template)
    return {e.id: _hash(repr((how, e.prompt, e.messages)).encode("utf-8", "surrogatepass")) for e in examples}


def folder_digest(folder: Path) -> str:
    """Return a hash of a model folder: of its weights, its configuration and its tokenizer.

    Weight files above 64 MiB are sampled at 64 places; a fine-tune changes all of them.
    """
    digest = hashlib.blake2b(digest_size=8)
    names = (".safetensors", ".bin", ".json", ".jinja", ".model")
    left_out = {"trainer_state.json", "README.md", "sightline_manifest.json"}
    for file in sorted(f for f in folder.iterdir() if f.suffix in names and f.name not in left_out and f.is_file()):
        if file.name == "training_args.bin":
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        with file.open("rb") as opened:
            if size <= _WHOLE_BYTES:
                digest.update(opened.read())
                continue
            for i in range(_SAMPLES):
                opened.seek(i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
                digest.update(opened.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _line(model: str, key: str, example: GoldExample, prediction: Prediction) -> dict[str, Any]:
    return {
        "key": key,
        "model": model,
        "id": example.id,
        "group": example.group,
        "prompt": example.prompt,
        "references": list(example.references),
        "prediction": prediction.text,
        "tokens": prediction.tokens,
        "ended": prediction.ended,
    }


def _encoded(line: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a lone surrogate from a broken tokenizer
        text = {k: v.encode("utf-8", "replace").decode() if isinstance(v, str) else v for k, v in line.items()}
        return orjson.dumps(text, option=orjson.OPT_APPEND_NEWLINE, default=str)


def _read(path: Path) -> Iterator[tuple[str, Prediction]]:
    """Yield the answers in a file by key; a torn last line is passed over."""
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            found = orjson.loads(line)
            yield found["key"], Prediction(found["prediction"], int(found["tokens"]), bool(found["ended"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            if number == 1 and line and not line.startswith(_BEGINNING[: len(line)]):
                raise UsageError(
                    f"{path}: is there and holds no answers of an earlier judge; it is not overwritten: "
                    "give another file with --predictions"
                ) from None


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=12).hexdigest()
