"""Asking a model: order, limits, resuming, memory, stop texts."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from sightline.errors import ModelError  # noqa: E402
from sightline.gold.generation import (  # noqa: E402
    Settings,
    TransformersBackend,
    answer_all,
    answer_limit,
    cut_prompt,
    cut_text,
    longest_answer,
)
from sightline.gold.goldset import read_gold  # noqa: E402
from sightline.gold.models import Candidate, Models  # noqa: E402
from sightline.runs.gold import Prediction  # noqa: E402
from tests.gold import tiny  # noqa: E402

SETTINGS = Settings(12, frozenset([0]))


def examples(n: int = 40):
    return read_gold(((row, "") for row in tiny.questions(n)), "gold").examples


@pytest.fixture(scope="module")
def taught(tiny_models):
    with Models(str(tiny_models.base)).tuned_model(Candidate(tiny_models.whole, "whole")) as loaded:
        yield loaded


def test_answers_come_in_the_order_of_the_gold_set(taught):
    """And are those of asking each prompt alone."""
    gold = examples()
    together = answer_all(TransformersBackend(taught.model, taught.tokenizer), taught.tokenizer, gold, SETTINGS)
    one_by_one = TransformersBackend(taught.model, taught.tokenizer, width=1)
    assert together == answer_all(one_by_one, taught.tokenizer, gold, SETTINGS)
    right = sum(p.text == e.references[0] for e, p in zip(gold, together, strict=True))
    assert right >= 30
    assert all(p.ended for p in together if p.text in tiny.COLOURS)


def test_models_without_slots_give_the_same_answers(taught):
    """Through ``model.generate``, stop texts included."""
    gold = examples()
    backend = TransformersBackend(taught.model, taught.tokenizer)
    settings = Settings(12, frozenset([0]), stop=("ee",))
    expected = answer_all(backend, taught.tokenizer, gold, settings)
    backend.why_not_slots = "for the test"
    backend.width = 7
    assert answer_all(backend, taught.tokenizer, gold, settings) == expected
    assert {p.text for p in expected} & {"gr"}


def test_what_is_known_is_not_asked_again(taught):
    """A resumed run gives the answers of an uninterrupted one."""
    gold = examples()
    backend = TransformersBackend(taught.model, taught.tokenizer, width=2)
    backend.chunk = 8
    asked: list[str] = []
    whole = answer_all(backend, taught.tokenizer, gold, SETTINGS, on_answer=lambda e, p: asked.append(e.id))
    known = {id: whole[[e.id for e in gold].index(id)] for id in asked[:19]}
    marked = known | {asked[0]: Prediction("remembered", 1)}
    again: list[str] = []
    resumed = answer_all(
        backend, taught.tokenizer, gold, SETTINGS, known=marked, on_answer=lambda e, p: again.append(e.id)
    )
    assert set(again) == set(asked[19:])
    assert [p for p in resumed if p.text != "remembered"] == [
        p for e, p in zip(gold, whole, strict=True) if e.id != asked[0]
    ]


def test_progress_ends_at_the_number_of_answers(taught):
    """With the time left, which is nothing at the end."""
    told = []
    backend = TransformersBackend(taught.model, taught.tokenizer)
    answer_all(backend, taught.tokenizer, examples(), SETTINGS, on_progress=told.append)
    assert (told[-1].done, told[-1].total, told[-1].seconds_left) == (40, 40, 0.0)
    assert told[-1].tokens_per_second > 0


def test_too_little_memory_halves_the_width_and_loses_nothing(taught, monkeypatch):
    """Down to one answer at a time; then the user is told what to do."""
    from sightline.gold import slots

    real, most = slots.decode, [8]

    def short_of_memory(model, prompts, limits, ends, on_answer, *, width, **options):
        if width > most[0]:
            real(model, prompts[:2], limits[:2], ends, on_answer, width=2, **options)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        real(model, prompts, limits, ends, on_answer, width=width, **options)

    monkeypatch.setattr(slots, "decode", short_of_memory)
    backend = TransformersBackend(taught.model, taught.tokenizer)
    answers: list[str] = []
    found = answer_all(backend, taught.tokenizer, examples(), SETTINGS, on_answer=lambda e, p: answers.append(e.id))
    assert backend.width == 8
    assert len(answers) == len(set(answers)) == len(found) == 40
    most[0] = 0
    with pytest.raises(ModelError, match="not enough memory to answer a single prompt"):
        answer_all(TransformersBackend(taught.model, taught.tokenizer), taught.tokenizer, examples(), SETTINGS)


def test_other_errors_are_not_taken_for_memory(taught, monkeypatch):
    """They come through."""
    from sightline.gold import slots

    def broken(*args, **kwargs):
        raise RuntimeError("a shape is wrong")

    monkeypatch.setattr(slots, "decode", broken)
    with pytest.raises(RuntimeError, match="a shape is wrong"):
        answer_all(TransformersBackend(taught.model, taught.tokenizer), taught.tokenizer, examples(), SETTINGS)


def test_prompts_that_do_not_fit_lose_their_beginning():
    """Half of the context is the prompt's at least."""
    assert cut_prompt(list(range(10)), None, 100) == list(range(10))
    assert cut_prompt(list(range(10)), 16, 6) == list(range(10))
    assert cut_prompt(list(range(10)), 12, 6) == list(range(4, 10))
    assert cut_prompt(list(range(10)), 12, 50) == list(range(4, 10))
    assert answer_limit(6, 12, 50) == 6
    assert answer_limit(12, 12, 5) == 1
    assert answer_limit(12, None, 5) == 5


def test_length_of_an_answer_follows_from_the_right_ones():
    """Twice the longest; room to reason where the right answers are bare numbers."""
    read = tiny.tokenizer()
    gold = read_gold([({"prompt": "q", "answer": "a" * 20}, "")], "g").examples
    assert longest_answer(gold, read) == 40
    short = read_gold([({"prompt": "q", "answer": "7"}, "")], "g").examples
    assert longest_answer(short, read) == 16
    assert longest_answer(short, read, reasons=True) == 256
    shown = read_gold([({"prompt": "q", "answer": "7", "completion": "3 + 4 = 7 #### 7"}, "")], "g").examples
    assert longest_answer(shown, read, reasons=True) == 32


def test_text_is_cut_before_the_first_stop():
    """The stop itself is left out."""
    assert cut_text("a\nb;c", [";", "\n"]) == "a"
    assert cut_text("abc", ["x"]) == "abc"


def test_the_model_is_left_as_it_was(taught):
    """In training mode if it was in training mode, its random stream untouched."""
    taught.model.train()
    state = torch.get_rng_state()
    answer_all(TransformersBackend(taught.model, taught.tokenizer), taught.tokenizer, examples(4), SETTINGS)
    assert taught.model.training
    assert torch.equal(state, torch.get_rng_state())
    taught.model.eval()
