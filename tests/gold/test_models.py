"""Base and tuned models: adapters on and off, and models that do not belong together."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from sightline.errors import ModelError  # noqa: E402
from sightline.gold.models import (  # noqa: E402
    Candidate,
    Models,
    adapter_base,
    first_logits,
    read_configs,
    unchanged_finding,
)
from tests.gold import tiny  # noqa: E402

PROMPTS = [[5, 6, 7], [8, 9]]


def logits_of(models: Models, candidate: Candidate | None):
    opened = models.base_model() if candidate is None else models.tuned_model(candidate)
    with opened as loaded:
        return first_logits(loaded, PROMPTS)


def test_an_adapter_comes_on_and_goes_off(tiny_models):
    """The base model is the same before and after, bit by bit."""
    models = Models(str(tiny_models.base))
    first, second = (Candidate(tiny_models.run / f"checkpoint-{n}", f"c{n}") for n in (10, 150))
    base = logits_of(models, None)
    tuned = [logits_of(models, first), logits_of(models, second), logits_of(models, first)]
    assert torch.equal(base, logits_of(models, None))
    assert torch.equal(tuned[0], tuned[2])
    assert not torch.equal(tuned[0], base)
    assert not torch.equal(tuned[0], tuned[1])


def test_an_adapter_with_whole_modules_goes_off_too(tiny_models, tmp_path):
    """Embeddings trained beside LoRA are put back."""
    rows = tiny.questions()
    folder = tiny.with_adapter(
        tiny_models.base, rows, 3, tmp_path / "a", modules_to_save=["embed_tokens"], ensure_weight_tying=True
    )
    models = Models(str(tiny_models.base))
    plain = Candidate(tiny_models.run / "checkpoint-10", "plain")
    base, other = logits_of(models, None), logits_of(models, plain)
    assert not torch.equal(base, logits_of(models, Candidate(folder, "a")))
    assert torch.equal(other, logits_of(models, plain))
    assert torch.equal(base, logits_of(models, None))


def test_a_whole_model_stands_beside_the_base(tiny_models):
    """One after the other in memory."""
    models = Models(str(tiny_models.base), tiny_models.whole)
    base = logits_of(models, None)
    assert not torch.equal(base, logits_of(models, Candidate(tiny_models.whole, "whole")))
    assert torch.equal(base, logits_of(models, None))
    assert models.same_tokenizer
    assert models.findings == []


def test_an_untrained_adapter_is_called_unchanged(tiny_models, tmp_path):
    """LoRA starts as no change at all."""
    folder = tiny.with_adapter(tiny_models.base, [], 0, tmp_path / "zero")
    candidate = Candidate(folder, "zero")
    models = Models(str(tiny_models.base))
    finding = unchanged_finding(candidate, logits_of(models, None), logits_of(models, candidate))
    assert finding is not None
    assert "the adapter changes nothing" in finding.message
    trained = Candidate(tiny_models.run / "checkpoint-10", "c10")
    assert unchanged_finding(trained, logits_of(models, None), logits_of(models, trained)) is None


def test_broken_weights_are_told(tiny_models):
    """NaN logits mean nothing."""
    base = logits_of(Models(str(tiny_models.base)), None)
    finding = unchanged_finding(Candidate(Path("x"), "x"), base, base * float("nan"))
    assert finding is not None
    assert finding.kind == "gold_broken_model"


def test_an_adapter_of_another_base_is_refused(tiny_models, tmp_path):
    """With the base it was made for."""
    other = tiny.save(tiny.base_model(hidden=32), tmp_path / "other")
    with pytest.raises(ModelError, match=r"does not fit the base model .*other .*it was made for .*base") as raised:
        logits_of(Models(str(other)), Candidate(tiny_models.run / "checkpoint-10", "c10"))
    assert "\n" not in str(raised.value)


def test_an_adapter_whose_weights_have_no_place_is_refused(tiny_models, tmp_path):
    """Names that the model does not have: nothing would be loaded."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "renamed"
    shutil.copytree(tiny_models.run / "checkpoint-10", folder)
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({k.replace("layers.0", "layers.7"): v for k, v in weights.items()}, folder / "adapter_model.safetensors")
    models = Models(str(tiny_models.base))
    with pytest.raises(ModelError, match="some of its weights have no place"):
        logits_of(models, Candidate(folder, "renamed"))


def test_another_tokenizer_is_told(tiny_models, tmp_path):
    """Each model then reads with its own."""
    folder = tmp_path / "other"
    shutil.copytree(tiny_models.whole, folder)
    saved = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = saved["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    models = Models(str(tiny_models.base), folder)
    candidate = Candidate(folder, "other")
    assert models.tokenizer().get_vocab() != models.tokenizer(candidate).get_vocab()
    assert not models.same_tokenizer
    assert models.findings[0].kind == "gold_other_tokenizer"
    assert models.findings[0].message.startswith("tuned and base have different tokenizers (2 tokens differ")


@pytest.mark.parametrize("broken", ["no config", "no weights", "cut weights", "no tokenizer"])
def test_models_that_cannot_be_loaded(broken, tiny_models, tmp_path):
    """One plain line each."""
    folder = tmp_path / "m"
    shutil.copytree(tiny_models.whole, folder)
    if broken == "no config":
        (folder / "config.json").unlink()
    elif broken == "no weights":
        (folder / "model.safetensors").unlink()
    elif broken == "cut weights":
        (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
    else:
        (folder / "tokenizer.json").unlink()
        (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="could not be loaded") as raised:
        logits_of(Models(str(folder)), None)
    assert "\n" not in str(raised.value)


def test_configurations_are_read_without_weights(tiny_models, tmp_path):
    """For end tokens and context before anything is loaded."""
    config, generation = read_configs(str(tiny_models.base))
    assert config.max_position_embeddings == 96
    assert generation.eos_token_id == 0
    with pytest.raises(ModelError, match="configuration could not be read"):
        read_configs(str(tmp_path))


def test_the_base_an_adapter_names(tiny_models, tmp_path):
    """None where it names none."""
    assert adapter_base(tiny_models.run / "checkpoint-10") == str(tiny_models.base)
    assert adapter_base(tmp_path) is None
