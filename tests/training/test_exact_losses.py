"""The exact loss of anyone's Trainer: from its own pass, or from one beside it, and never at the training's cost."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from datasets import Dataset
from peft import LoraConfig
from transformers import Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from sightline.evaluation import LossHook, evaluate
from sightline.journal import reader
from sightline.training import exact_losses
from sightline.training.callback import SightlineCallback, watch
from sightline.training.collated_rows import CollatedRows
from tests.evaluation.tiny import CAUSAL, SHAPE, build

from .synthetic import byte_tokenizer
from .tiny import collate, tiny_model, tiny_rows, tiny_trainer, weights

ROOT = Path(__file__).parents[2]
QUIET: dict[str, Any] = {
    "report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1, "max_steps": 4,
    "eval_strategy": "steps", "eval_steps": 2, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4,
}  # fmt: skip


def assert_last_is_exact(folder: Path, trainer: Any, rows: Any) -> Any:
    """Assert that the last evaluation in the journal is that of the weights as they are now; return it."""
    run = reader.read(folder)
    assert run.eval_loss.replaced is None  # the Trainer's number of the same pass is no second evaluation
    last = run.evaluations[-1]
    exact = evaluate(trainer.model, rows)
    logged = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert last.eval_loss == pytest.approx(exact.loss, rel=1e-6)
    assert last.reported_loss == pytest.approx(logged[-1])
    np.testing.assert_array_equal(last.losses.token_counts, exact.token_counts)
    np.testing.assert_allclose(last.losses.loss_sums, exact.loss_sums, rtol=1e-5)
    return last


@pytest.mark.parametrize("exact_evaluation", [False, True])
@pytest.mark.parametrize("batch_size", [1, 5, 16])
def test_a_plain_trainer_is_judged_by_the_exact_loss(tmp_path, exact_evaluation, batch_size):
    """Whatever its eval batch size the journal has the token mean of every row, and the Trainer's number beside it."""
    callback = SightlineCallback(exact_evaluation=exact_evaluation)
    trainer = tiny_trainer(tmp_path, callbacks=[callback], per_device_eval_batch_size=batch_size)
    trainer.train()
    last = assert_last_is_exact(tmp_path, trainer, trainer.eval_dataset)
    assert (last.probe is not None) is exact_evaluation
    assert abs(last.reported_loss / last.eval_loss - 1) > 0.01  # GPT-2's is divided by first tokens too


def test_the_exact_loss_can_choose_the_best_model(tmp_path):
    """metric_for_best_model finds it among the metrics of an evaluation; unasked nothing is added to them."""
    assert "eval_loss_exact" not in tiny_trainer(tmp_path / "a", callbacks=[SightlineCallback()]).evaluate()
    trainer = tiny_trainer(tmp_path / "b", metric_for_best_model="eval_loss_exact", greater_is_better=False)
    watch(trainer, exact_evaluation=True)
    trainer.train()
    evaluations = reader.read(tmp_path / "b").evaluations
    assert trainer.state.best_metric == min(e.eval_loss for e in evaluations)


def test_an_own_pass_changes_no_weight(tmp_path):
    """With dropout the weights are bit-equal to those of a run that nobody watches."""
    ends = []
    for name, callbacks in (("plain", []), ("watched", [SightlineCallback(exact_evaluation=True)])):
        trainer = tiny_trainer(tmp_path / name, callbacks=callbacks)
        trainer.train()
        ends.append(weights(trainer))
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


@pytest.mark.parametrize("exact_evaluation", [False, True])
def test_sft_trainer_with_lora(tmp_path, exact_evaluation):
    """TRL tokenises and masks the rows itself; both passes score what the model is trained on."""
    rows = [{"prompt": f"What is {i}?", "completion": f" It is {'a b ' * (i % 5)}number {i}."} for i in range(11)]
    tokenizer = byte_tokenizer(bos_token=None)
    trainer = SFTTrainer(
        model=build(lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**{**SHAPE, "vocab_size": len(tokenizer)})), loud=2.0),
        args=SFTConfig(str(tmp_path), bf16=False, max_length=64, **QUIET),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list(rows[:8]),
        eval_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(r=2, target_modules=["q_proj", "v_proj"], lora_dropout=0.1),
        callbacks=[SightlineCallback(exact_evaluation=exact_evaluation)],
    )
    trainer.train()
    loader = trainer.get_eval_dataloader()
    expected = [row for item in CollatedRows(loader, "validation set") for row in item.rows()]
    assert sum(label != -100 for row in expected for label in row.labels) < sum(len(row.labels) for row in expected)
    last = assert_last_is_exact(tmp_path, trainer, expected)
    assert (last.probe is not None) is exact_evaluation


def test_packed_rows_are_taken_apart():
    """A row in which positions begin anew is scored as the rows it is made of, whatever else TRL's collator says of it."""
    model, rows = build(CAUSAL["llama"]), [[5, 6, 7, 8, 9], [20, 21, 22]]
    packed = {"input_ids": [*rows[0], *rows[1]], "labels": [*rows[0], *rows[1]], "seq_lengths": [5, 3]}
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    assert "cu_seq_lens_q" in collate([packed])  # what kernels for packed rows are told
    loader = torch.utils.data.DataLoader([packed], collate_fn=collate)
    found = CollatedRows(loader, "validation set")[0].rows()
    apart = evaluate(model, [(row, row) for row in rows])
    assert evaluate(model, found).loss_sums.tolist() == apart.loss_sums.tolist()


def test_several_validation_sets(tmp_path):
    """The first is judged, the others have a curve of their own."""
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback(exact_evaluation=True)])
    trainer.eval_dataset = {"seen": tiny_rows(12, seed=2), "other": tiny_rows(7, seed=5)}
    trainer.train()
    run = reader.read(tmp_path)
    assert run.evaluations[-1].eval_loss == pytest.approx(evaluate(trainer.model, tiny_rows(12, seed=2)).loss)
    other = evaluate(trainer.model, tiny_rows(7, seed=5)).loss
    assert run.curves["eval_other_loss_exact"].values[-1] == pytest.approx(other)


def test_predictions_and_broken_passes_do_not_count(tmp_path):
    """Batches of predict() and of an evaluation that broke off are in no later sum."""
    callback = SightlineCallback()
    trainer = tiny_trainer(tmp_path, callbacks=[callback], per_device_eval_batch_size=3)
    trainer.predict(tiny_rows(5, seed=9))
    step = trainer.prediction_step

    def breaks(model, inputs, *args, **kwargs):
        if trainer.broken == 2:
            raise KeyboardInterrupt
        trainer.broken += 1
        return step(model, inputs, *args, **kwargs)

    trainer.broken, trainer.prediction_step = 0, breaks
    with pytest.raises(KeyboardInterrupt):
        trainer.evaluate()
    trainer.prediction_step = step
    trainer.train()
    assert_last_is_exact(tmp_path, trainer, trainer.eval_dataset)


def test_a_test_set_after_the_end_is_no_point_of_the_curve(tmp_path):
    """Scripts end with trainer.evaluate(test_set): its exact loss is told, the run's last evaluation stays."""
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback(exact_evaluation=True)])
    trainer.train()
    before = reader.read(tmp_path)
    test_set = tiny_rows(9, seed=7)
    metrics = trainer.evaluate(test_set)
    assert metrics["eval_loss_exact"] == pytest.approx(evaluate(trainer.model, test_set).loss)
    after = reader.read(tmp_path)
    assert after.eval_loss.values.tolist() == before.eval_loss.values.tolist()
    assert after.evaluations[-1].eval_loss == before.evaluations[-1].eval_loss
    assert trainer.evaluate()["eval_loss_exact"] == pytest.approx(before.evaluations[-1].eval_loss)


@pytest.mark.parametrize("labels", ["classes", "numbers"])
def test_classifiers(tmp_path, labels):
    """One loss a row, in both passes."""
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=48, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        num_labels=3 if labels == "classes" else 1,
    )  # fmt: skip
    rows = [
        {"input_ids": row["input_ids"], "attention_mask": [1] * len(row["input_ids"]),
         "labels": i % 3 if labels == "classes" else i / 3}
        for i, row in enumerate(tiny_rows(11))
    ]  # fmt: skip
    means = []
    for exact_evaluation in (False, True):
        trainer = Trainer(
            model=hf.BertForSequenceClassification(config).eval(),
            args=TrainingArguments(str(tmp_path / str(exact_evaluation)), **QUIET, seed=0),
            train_dataset=rows,
            eval_dataset=rows,
            data_collator=hf.DataCollatorWithPadding(byte_tokenizer()),
            callbacks=[SightlineCallback(exact_evaluation=exact_evaluation)],
        )
        trainer.train()
        last = reader.read(tmp_path / str(exact_evaluation)).evaluations[-1]
        assert last.losses.tokens == 11
        means.append(last.eval_loss)
        assert last.eval_loss == pytest.approx(evaluate(trainer.model, rows).loss, rel=1e-5)


def test_an_encoder_decoder_with_rows_padded_to_one_length(tmp_path):
    """The mask of the encoder's tokens hides no label of the decoder's."""
    torch.manual_seed(0)
    config = hf.T5Config(
        vocab_size=48, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0, pad_token_id=0
    )
    rows = [
        {"input_ids": [5, 6, 7, 0, 0, 0], "attention_mask": [1, 1, 1, 0, 0, 0], "labels": [9, 8, 7, 6, 1, -100]},
        {
            "input_ids": [5, 9, 7, 8, 1, 0],
            "attention_mask": [1, 1, 1, 1, 1, 0],
            "labels": [9, 1, -100, -100, -100, -100],
        },
    ]
    trainer = Trainer(
        model=hf.T5ForConditionalGeneration(config),
        args=TrainingArguments(str(tmp_path), **QUIET),
        train_dataset=rows * 4,
        eval_dataset=rows,
        callbacks=[SightlineCallback(exact_evaluation=True)],
    )
    trainer.train()
    last = reader.read(tmp_path).evaluations[-1]
    with torch.no_grad():
        batch = {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
        own = trainer.model.eval()(**batch).loss.item()
    assert last.losses.token_counts.tolist() == [5, 2]
    assert last.eval_loss == pytest.approx(own, rel=1e-5)


def test_label_smoothing_needs_an_own_pass(tmp_path):
    """Labels kept from the model leave no exact sum in its outputs; with a pass of its own there is one."""
    for exact_evaluation in (False, True):
        folder = tmp_path / str(exact_evaluation)
        callback = SightlineCallback(exact_evaluation=exact_evaluation)
        trainer = tiny_trainer(folder, callbacks=[callback], label_smoothing_factor=0.1)
        trainer.train()
        if exact_evaluation:
            assert_last_is_exact(folder, trainer, trainer.eval_dataset)
        else:
            run = reader.read(folder)
            assert not run.evaluations and len(run.eval_loss) == 4


def test_compiled_models_are_seen(tmp_path):
    """A Trainer that compiles its model gives the same sums."""
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback()], torch_compile=True, torch_compile_backend="eager")
    trainer.train()
    assert_last_is_exact(tmp_path, trainer, trainer.eval_dataset)


def test_a_stream_of_rows_is_said_not_to_be_scored_and_hooked(tmp_path):
    """A data set without a length cannot be scored again; the Trainer's own pass still has the exact sum."""
    rows = tiny_rows(12, seed=2)
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback(exact_evaluation=True)])
    trainer.eval_dataset = Dataset.from_list(rows).to_iterable_dataset()
    with pytest.warns(RuntimeWarning, match="without a length"):
        trainer.train()
    assert_last_is_exact(tmp_path, trainer, rows)


def test_rows_with_more_than_tokens_are_left_to_the_trainer(tmp_path):
    """What a pass of its own could not give the model is named, and the Trainer's pass counts."""
    rows = [row | {"token_type_ids": [0, *[1] * (len(row["input_ids"]) - 1)]} for row in tiny_rows(12, seed=2)]

    def with_types(batch):
        width = max(len(row["input_ids"]) for row in batch)
        types = [row["token_type_ids"] + [0] * (width - len(row["token_type_ids"])) for row in batch]
        return collate(batch) | {"token_type_ids": torch.tensor(types)}

    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback(exact_evaluation=True)])
    trainer.data_collator, trainer.eval_dataset, trainer.train_dataset = with_types, rows, rows
    with pytest.warns(RuntimeWarning, match="token_type_ids"):
        trainer.train()
    run = reader.read(tmp_path)
    assert len(run.evaluations) == 4
    assert run.evaluations[-1].eval_loss != pytest.approx(evaluate(trainer.model, rows).loss, rel=1e-3)


def broken(*args: Any, **kwargs: Any) -> None:
    raise ValueError("broken on purpose")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(LossHook, "attach"), (LossHook, "batch_done"), (LossHook, "take"), (exact_losses, "evaluate"),
     (exact_losses, "train_probe"), (exact_losses, "EvalSet")],
)  # fmt: skip
def test_an_error_in_it_never_reaches_the_trainer(tmp_path, monkeypatch, owner, name):
    """Whatever breaks, training ends with the weights it would have had."""
    plain = tiny_trainer(tmp_path / "plain")
    plain.train()
    monkeypatch.setattr(owner, name, broken)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = tiny_trainer(tmp_path / "watched", callbacks=[SightlineCallback(exact_evaluation=True)])
        trainer.train()
    assert any("broken on purpose" in str(warning.message) for warning in caught)
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(trainer), strict=True))
    assert len(reader.read(tmp_path / "watched").eval_loss) == 4


def test_out_of_memory_leaves_the_trainers_own_pass(tmp_path, monkeypatch):
    """The pass of its own breaks once: that evaluation is the hooked one, the next is complete again."""
    calls = []

    def short_of_memory(*args, **kwargs):
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return evaluate(*args, **kwargs)

    monkeypatch.setattr(exact_losses, "evaluate", short_of_memory)
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback(exact_evaluation=True)])
    with pytest.warns(RuntimeWarning, match="out of memory"):
        trainer.train()
    assert [e.probe is not None for e in reader.read(tmp_path).evaluations] == [False, True, True, True]


def test_nan_weights_are_counted_although_the_trainer_shows_a_number(tmp_path):
    """The Trainer leaves a broken batch out of its mean; the run is judged by the truth and called diverged."""
    trainer = tiny_trainer(tmp_path, callbacks=[SightlineCallback()], per_device_eval_batch_size=1)
    with torch.no_grad():
        trainer.model.transformer.wpe.weight[10] = torch.nan  # seen by the longer rows only
    metrics = trainer.evaluate()
    assert np.isfinite(metrics["eval_loss"])
    run = reader.read(tmp_path)
    assert run.evaluations[0].losses.non_finite >= 1 and not np.isfinite(run.evaluations[0].eval_loss)


SCRIPT = """
import sys
from pathlib import Path
import torch
from sightline.evaluation import LossHook
from sightline.training.callback import SightlineCallback
from tests.training.tiny import tiny_rows, tiny_trainer, weights

folder, kind = Path(sys.argv[1]), sys.argv[2]
callback = SightlineCallback(exact_evaluation=kind != "hook")
trainer = tiny_trainer(folder, callbacks=[callback], per_device_eval_batch_size=4, max_steps=6)
trainer.eval_dataset = tiny_rows(11, seed=2)
rank = trainer.args.process_index
if kind == "one rank broken" and rank == 1:
    done = LossHook.batch_done
    LossHook.batch_done = lambda self, **kwargs: 1 / 0
    trainer.eval_dataset = [row | {} for row in trainer.eval_dataset]
    collate, trainer.data_collator = trainer.data_collator, lambda rows: collate(rows) if len(rows) > 1 else 1 / 0
trainer.train()
torch.save(weights(trainer), folder / f"rank{rank}.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hook", "own pass", "one rank broken"])
def test_two_ranks(tmp_path, kind):
    """Eleven rows over two ranks: each counts once; an error on one rank leaves nobody waiting."""
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, str(tmp_path / "script.py"), str(tmp_path), kind],
        cwd=ROOT, capture_output=True, text=True, timeout=180,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    run = reader.read(tmp_path)
    if kind == "one rank broken":
        assert not run.evaluations and len(run.eval_loss) == 2
        return
    model = tiny_model()
    for parameter, value in zip(model.parameters(), torch.load(tmp_path / "rank0.pt"), strict=True):
        parameter.data.copy_(value)
    exact = evaluate(model, tiny_rows(11, seed=2))
    last = run.evaluations[-1]
    assert last.eval_loss == pytest.approx(exact.loss, rel=1e-6)
    np.testing.assert_allclose(last.losses.loss_sums, exact.loss_sums, rtol=1e-5)
    assert last.reported_loss != pytest.approx(exact.loss, rel=1e-3)
