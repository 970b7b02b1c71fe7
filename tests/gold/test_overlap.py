"""Gold rows that stand in the training data are found, templates are not mistaken for them."""

from __future__ import annotations

import random

from sightline.gold.overlap import Overlap, find_overlap, overlap_finding
from sightline.runs import Severity
from sightline.runs.gold import GoldExample

WORDS = [f"word{i}" for i in range(3000)]


def example(prompt: str, id: str) -> GoldExample:
    return GoldExample(id=id, prompt=prompt, references=("a",), target="a")


def sentence(rng: random.Random, n: int) -> str:
    return " ".join(rng.choices(WORDS, k=n))


def test_equal_and_nearly_equal_prompts_are_told_apart():
    """Case and punctuation do not hide a prompt; a changed word or an appended completion makes it nearly equal."""
    rng = random.Random(1)
    prompts = [sentence(rng, 30) for _ in range(3)]
    words = prompts[1].split()
    changed = " ".join([*words[:3], "other", *words[4:]])
    training = [prompts[0].upper() + "!", changed, sentence(rng, 30)]
    found = find_overlap([example(p, str(i)) for i, p in enumerate(prompts)], training)
    assert found.equal == ("0",)
    assert found.near == ("1",)
    assert found.ids == {"0", "1"}


def test_a_template_shared_by_all_rows_is_no_overlap():
    """Long instructions around short questions are the same in training and gold, and say nothing."""
    rng = random.Random(2)
    template = sentence(rng, 40)
    gold = [example(f"{template} {sentence(rng, 9)}", str(i)) for i in range(60)]
    training = [f"{template} {sentence(rng, 9)}" for _ in range(60)]
    assert find_overlap(gold, training).ids == frozenset()


def test_hashes_alone_suffice():
    """Where only the hashes of training prompts are known."""
    gold = [example("one", "1"), example("two", "2")]
    found = find_overlap(gold, training_hashes={hash("two")}, prompt_hash=hash)
    assert found.equal == ("2",)


def test_finding_counts_rows():
    """The sentence has the numbers."""
    gold = [example("one two", "1"), example("three", "2")]
    finding = overlap_finding(find_overlap(gold, ["one two"]), 2)
    assert finding is not None
    assert finding.message.startswith("1 of 2 gold prompts stands in the training data (1 word for word)")
    assert overlap_finding(find_overlap(gold, ["four"]), 2) is None


def test_a_few_rows_that_are_only_near_are_a_note():
    """One word for word, or more than one in a hundred, is a warning."""
    few, many = Overlap((), ("a",), 9), Overlap((), ("a", "b"), 9)
    assert overlap_finding(few, 150).severity is Severity.INFO
    assert overlap_finding(many, 150).severity is Severity.WARNING
    assert overlap_finding(Overlap(("a",), (), 9), 1000).severity is Severity.WARNING
    assert overlap_finding(Overlap((), (), 9), 10) is None
