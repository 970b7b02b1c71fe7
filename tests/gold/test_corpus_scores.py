"""BLEU and chrF from counts by row equal sacrebleu's, on the whole corpus and on any sample of it."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest

from sightline.gold.corpus_scores import bleu, bleu_counts, chrf, chrf_counts, token_mean

sacrebleu = pytest.importorskip("sacrebleu")

WORDS = ["the", "cat", "sat", "on", "a", "mat.", "It", "cost", "£30,", "isn't", "naïve", "B-52"]


def corpus(seed: int, n: int = 60) -> tuple[list[str], list[list[str]]]:
    """Predictions near one of two or three references; a few empty or of one word."""
    rng = random.Random(seed)
    references = [
        [" ".join(rng.choices(WORDS, k=rng.randint(3, 14))) for _ in range(rng.randint(2, 3))] for _ in range(n)
    ]
    predictions = []
    for row in references:
        words = rng.choice(row).split()
        predictions.append(" ".join(w if rng.random() < 0.8 else rng.choice(WORDS) for w in words))
    predictions[3], predictions[4] = "", "cat"
    return predictions, references


def streams(references: list[list[str]]) -> list[list[str | None]]:
    return [[row[i] if i < len(row) else None for row in references] for i in range(max(map(len, references)))]


@pytest.mark.parametrize("seed", range(4))
def test_corpus_scores_equal_sacrebleu(seed):
    """On all rows and on samples of rows drawn with replacement."""
    predictions, references = corpus(seed)
    rng = np.random.default_rng(seed)
    for rows in [np.arange(60), *rng.integers(0, 60, size=(3, 60)), np.array([3, 4])]:
        hypotheses, right = [predictions[i] for i in rows], [references[i] for i in rows]
        theirs = sacrebleu.corpus_bleu(hypotheses, streams(right)).score
        assert bleu(bleu_counts(predictions, references)[rows].sum(axis=0)) == pytest.approx(theirs, abs=1e-9)
        theirs = sacrebleu.corpus_chrf(hypotheses, streams(right)).score
        assert chrf(chrf_counts(predictions, references)[rows].sum(axis=0)) == pytest.approx(theirs, abs=1e-9)


def test_corpus_scores_equal_sacrebleus_command_line(tmp_path):
    """Through ``python -m sacrebleu``."""
    predictions, references = corpus(9)
    references = [row[:2] for row in references]
    for i in range(2):
        (tmp_path / f"ref{i}").write_text("\n".join(row[i] for row in references) + "\n")
    (tmp_path / "hyp").write_text("\n".join(predictions) + "\n")
    command = [sys.executable, "-m", "sacrebleu", tmp_path / "ref0", tmp_path / "ref1", "-i", tmp_path / "hyp"]
    printed = subprocess.run(
        [*map(str, command), "-m", "bleu", "chrf", "-w", "6"], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    theirs = {entry["name"]: entry["score"] for entry in json.loads(printed)}
    assert bleu(bleu_counts(predictions, references).sum(axis=0)) == pytest.approx(theirs["BLEU"], abs=1e-6)
    assert chrf(chrf_counts(predictions, references).sum(axis=0)) == pytest.approx(theirs["chrF2"], abs=1e-6)


def test_scores_of_many_samples_are_those_of_each():
    """Vectorised over the leading axes."""
    predictions, references = corpus(2)
    counts = bleu_counts(predictions, references)
    sums = np.stack([counts[:10].sum(axis=0), counts[10:].sum(axis=0), np.zeros(10)])
    assert bleu(sums).tolist() == [float(bleu(s)) for s in sums]
    sums = np.stack([chrf_counts(predictions, references).sum(axis=0), np.zeros(18)])
    assert chrf(sums).tolist() == [float(chrf(s)) for s in sums]
    assert token_mean(np.array([[6.0, 3.0], [1.0, 4.0]])).tolist() == [2.0, 0.25]
