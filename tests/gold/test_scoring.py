"""Scores of single answers, against SQuAD's official script and rouge-score's command line."""

from __future__ import annotations

import csv
import random
import subprocess
import sys
from decimal import Decimal

import pytest

from sightline.errors import MissingExtra, UsageError
from sightline.gold.scoring import METRICS, exact_match, metric_named, number_in, numeric, rouge_l, token_f1

# What the official evaluation script of SQuAD 2.0 gives: prediction, right answers, exact, f1.
SQUAD = [
    ("The  Norman Conquest.", ["Norman conquest"], 1, 1.0),
    ("in the 10th and 11th centuries", ["10th and 11th centuries", "in the 10th and 11th centuries"], 1, 1.0),
    ("", ["Paris"], 0, 0),
    ("the", ["a"], 1, 1),
    ("U.S.A.", ["USA"], 1, 1.0),
    ("state-of-the-art", ["state of the art"], 0, 0),
    ("théâtre the", ["théâtre"], 1, 1.0),
    ("cat cat dog", ["cat dog dog"], 0, 0.6666666666666666),
    ("An apple a day", ["apple day", "apples"], 1, 1.0),
    ("  TWO\n words\t", ["two words"], 1, 1.0),
    ("O'Neill’s", ["ONeills", "ONeill’s"], 1, 1.0),
    ("1,000", ["1000"], 1, 1.0),
    ("another banana", ["other banana"], 0, 0.5),
    ("fast card arrival card", ["card arrival"], 0, 0.6666666666666666),
    ("İstanbul", ["istanbul"], 0, 0),
]


@pytest.mark.parametrize(("prediction", "references", "exact", "f1"), SQUAD)
def test_scores_equal_those_of_squads_official_script(prediction, references, exact, f1):
    """Exact match and F1."""
    assert exact_match(prediction, references) == exact
    assert token_f1(prediction, references) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She has 3 apples and buys 4, so 7.", "7"),
        ("#### 1,234", "1234"),
        ("It is 5.\n#### 18\nQuestion: 7 birds", "18"),
        ("The answer is $12.50.", "12.50"),
        ("-$3", "-3"),
        ("minus −4 or -4", "-4"),
        ("3,000,000 dollars", "3000000"),
        ("it costs 5.", "5"),
        (".5", "0.5"),
        ("twelve", None),
        ("", None),
    ],
)
def test_the_number_an_answer_comes_to(text, number):
    """The last number, or the one that is marked as GSM8K marks it."""
    assert number_in(text) == (None if number is None else Decimal(number))


def test_equal_numbers_match_however_they_are_written():
    """18, 18.0 and $18 are one number; no number matches nothing."""
    assert numeric("so he pays $18.00.", ["18"]) == 1.0
    assert numeric("19", ["18", "20"]) == 0.0
    assert numeric("none", ["18"]) == 0.0


def test_rouge_l_equals_rouge_scores_command_line(tmp_path):
    """Row by row, through ``python -m rouge_score.rouge``."""
    pytest.importorskip("rouge_score")
    rng = random.Random(5)
    words = ["the", "cat", "sat", "on", "a", "mat", "running", "ran", "Dogs,", "42"]
    rows = [(" ".join(rng.choices(words, k=rng.randint(1, 12))), " ".join(rng.choices(words, k=9))) for _ in range(40)]
    (tmp_path / "t.txt").write_text("\n".join(target for _, target in rows) + "\n")
    (tmp_path / "p.txt").write_text("\n".join(prediction for prediction, _ in rows) + "\n")
    files = {"target_filepattern": "t.txt", "prediction_filepattern": "p.txt", "output_filename": "out.csv"}
    options = [f"--{name}={tmp_path / file}" for name, file in files.items()]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "rouge_score.rouge",
            *options,
            "--rouge_types=rougeL",
            "--noaggregate",
            "--nouse_stemmer",
        ],
        check=True,
        capture_output=True,
        timeout=60,
    )
    with (tmp_path / "out.csv").open() as file:
        theirs = [float(row["rougeL-F"]) for row in csv.DictReader(file)]
    assert [rouge_l(prediction, [target]) for prediction, target in rows] == pytest.approx(theirs, abs=1e-6)


def test_best_of_several_references_counts():
    """As SQuAD does it, for every score."""
    for metric in (exact_match, token_f1, rouge_l):
        assert metric("a red cat", ["blue dog", "red cat"]) > metric("a red cat", ["blue dog"])


def test_a_function_of_the_users_is_a_metric(tmp_path, monkeypatch):
    """``module:function``, its errors told with the prediction it failed on."""
    code = "def longest(p, r): return len(p) / max(map(len, r))\nthing = 3\n"
    code += "def broken(p, r): raise ValueError('no\\nway')\n"
    (tmp_path / "my_metrics.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    score = metric_named("my_metrics:longest").score
    assert score is not None
    assert score("abc", ("abcdef", "a")) == 0.5
    broken = metric_named("my_metrics:broken").score
    assert broken is not None
    with pytest.raises(UsageError, match=r"failed on the prediction 'abc' with ValueError: no;"):
        broken("abc", ("a",))
    with pytest.raises(UsageError, match="is a int, not a function"):
        metric_named("my_metrics:thing")


@pytest.mark.parametrize("name", ["exactmatch", "no_such_module_1:f", "os:no_such", ":"])
def test_unknown_metrics_are_refused(name):
    """With the names there are, or why the function cannot be had."""
    with pytest.raises(UsageError, match=r"no such metric|cannot be imported"):
        metric_named(name)


def test_a_missing_package_is_answered_with_its_pip_line(monkeypatch):
    """The extra is named."""
    from sightline.gold import scoring

    monkeypatch.setitem(sys.modules, "rouge_score", None)
    scoring._rouge_scorer.cache_clear()
    with pytest.raises(MissingExtra, match=r"pip install 'sightline\[gold\]'"):
        rouge_l("a", ["a"])
    scoring._rouge_scorer.cache_clear()


def test_every_metric_knows_how_it_is_scored():
    """A score by row, counts by corpus, or likelihoods."""
    for metric in METRICS.values():
        assert (metric.score is not None) != (metric.is_corpus or metric.needs == "choices"), metric.name
