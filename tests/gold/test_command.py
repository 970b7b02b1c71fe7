"""`sightline judge` as a user calls it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from sightline.cli.exits import guarded, run_app
from sightline.cli.judge import app
from sightline.journal import record
from tests.gold import tiny


@pytest.fixture(scope="module")
def run_folder(tiny_models, tmp_path_factory) -> Path:
    """A run of Sightline: its journal, and two checkpoints, the second with the lower loss."""
    folder = tmp_path_factory.mktemp("judged") / "run"
    shutil.copytree(tiny_models.run, folder)
    rows = tiny.write_rows(folder.parent / "train.jsonl", tiny.questions()[:5])
    recipe = {"model_name_or_path": str(tiny_models.base), "dataset": [str(rows)]}
    with record(folder, config={"recipe": recipe}) as run:
        for step, loss in ((0, 5.0), (10, 3.0), (150, 0.1)):
            run.log(step, loss=loss)
            run.evaluation(step, eval_loss=loss)
    return folder


@pytest.fixture
def judge(tiny_models, tmp_path, monkeypatch, capsys):
    """Run the command in an empty folder; give its exit code, its output and its errors."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        given = [str(word) for word in words]
        if "--forgetting" not in given:
            given += ["--forgetting", "none"]
        code = guarded(lambda: run_app(app, "judge", given))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


def test_a_checkpoint_is_judged_against_the_base_it_names(judge, tiny_models, tmp_path):
    """A page for a person, answers beside it, exit code 0."""
    code, page, _ = judge(tiny_models.gold, "--tuned", tiny_models.run / "checkpoint-150")
    assert code == 0
    assert page.startswith("Better than the base model")
    assert "checkpoint-150 is better than the base model: exact_match" in page
    assert "Rows won" in page
    assert len((tmp_path / "questions.answers.jsonl").read_text().splitlines()) == 80


def test_json_holds_an_answer_for_each_metric_and_checkpoint(judge, tiny_models):
    """One line of strict JSON, whatever else happens."""
    words = ["--tuned", tiny_models.run, "--checkpoint", "all", "--metric", "exact_match", "--metric", "token_f1"]
    code, out, _ = judge(tiny_models.gold, *words, "--json")
    document = json.loads(out)
    assert code == 0
    assert out.count("\n") == 1
    found = {(r["checkpoint"], r["metric"]): r["answer"] for r in document["results"]}
    assert set(found) == {(c, m) for c in ("checkpoint-10", "checkpoint-150") for m in ("exact_match", "token_f1")}
    assert found[("checkpoint-150", "exact_match")] == document["answer"] == "better"


def test_a_run_knows_its_base_its_best_checkpoint_and_its_training_rows(judge, run_folder, tiny_models):
    """Nothing but the gold set and the run has to be named; answers go into the run's folder."""
    code, out, _ = judge(tiny_models.gold, "--tuned", run_folder, "--json")
    document = json.loads(out)
    assert code == 0
    assert document["base"] == str(tiny_models.base)
    assert [(r["checkpoint"], r["step"]) for r in document["results"]] == [("checkpoint-150", 150)]
    assert document["predictions"] == str(run_folder / "sightline" / "gold.jsonl")
    overlap = next(f for f in document["findings"] if f["kind"] == "gold_overlap")
    assert overlap["evidence"]["equal"] == 5
    _, out, _ = judge(tiny_models.gold, "--tuned", run_folder, "--json", "--leave-out-seen")
    assert json.loads(out)["n"] == 35


def test_checkpoints_stand_beside_their_validation_losses(judge, run_folder, tiny_models):
    """With the one to keep."""
    _, out, _ = judge(tiny_models.gold, "--tuned", run_folder, "--checkpoint", "150,10", "--json")
    document = json.loads(out)
    assert [(p["step"], p["eval_loss"]) for p in document["by_step"]] == [(0, 5.0), (10, 3.0), (150, 0.1)]
    assert document["keep"]["checkpoint"] == document["keep"]["by_loss"] == "checkpoint-150"
    _, page, _ = judge(tiny_models.gold, "--tuned", run_folder, "--checkpoint", "all")
    assert "Keep checkpoint-150: it has the best exact_match and the lowest validation loss." in page
    assert "exact_match 0.0 % to 100.0 %" in page  # the end of the curve on the chart
    _, out, _ = judge(tiny_models.gold, "--tuned", run_folder, "--checkpoint", "all", "--keep-by", "gold", "--json")
    kept = json.loads(out)
    assert kept["n"] + kept["keep"]["choosing_rows"] == 40


def test_exit_code_1_only_where_it_is_asked_for(judge, tiny_models):
    """A tuned model that is not shown better, or one that forgot."""
    same = ["--tuned", tiny_models.base, "--base", tiny_models.base]
    assert judge(tiny_models.gold, *same)[0] == 0
    assert judge(tiny_models.gold, *same, "--fail-on", "worse")[0] == 0
    assert judge(tiny_models.gold, *same, "--fail-on", "worse,not-shown")[0] == 1
    swapped = ["--tuned", tiny_models.base, "--base", tiny_models.whole]
    code, page, _ = judge(tiny_models.gold, *swapped, "--fail-on", "worse")
    assert (code, page.splitlines()[0]) == (1, "Worse than the base model")


def test_forgetting_is_measured_on_the_text_given(judge, tiny_models, tmp_path):
    """Plain text by its paragraphs, or the text column of rows; the exit code on request."""
    texts = [f"Once upon a time there were {i} old men." for i in range(20)]
    text = tmp_path / "general.txt"
    text.write_text("\n\n".join(texts))
    teller = tiny.base_model(seed=2)
    tiny.teach(teller, [{"prompt": t[:1], "completion": t[1:]} for t in texts], 40)
    tuned = ["--tuned", tiny_models.whole]
    words = [*tuned, "--base", tiny.save(teller, tmp_path / "teller"), "--forgetting", text]
    code, page, _ = judge(tiny_models.gold, *words, "--fail-on", "forgot")
    told = " ".join(page.split())
    assert "It forgot: its loss on general text rose" in told
    assert "20 texts" in told
    assert code == 1
    words = ["--tuned", tmp_path / "teller", "--base", tiny_models.whole, "--forgetting", text]
    code, page, _ = judge(tiny_models.gold, *words, "--fail-on", "forgot")
    assert "It forgot nothing: its loss on general text fell" in " ".join(page.split())
    assert code == 0
    rows = tiny.write_rows(tmp_path / "general.jsonl", [{"text": "Once upon a time"}, {"text": "there were men"}])
    words[-1] = rows
    _, out, _ = judge(tiny_models.gold, *words, "--json")
    assert json.loads(out)["forgetting"][0]["texts"] == 2


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_gold_sets_of_other_formats(judge, tiny_models, tmp_path, kind):
    """CSV with a header, JSON with a list, question and answer columns."""
    rows = [(row["prompt"].removesuffix(">"), row["completion"]) for row in tiny.questions(4)]
    path = tmp_path / f"gold.{kind}"
    if kind == "csv":
        path.write_text("question,answer\n" + "".join(f"{q},{a}\n" for q, a in rows))
    else:
        path.write_text(json.dumps([{"question": q, "answer": a} for q, a in rows]))
    words = ["--tuned", tiny_models.whole, "--base", tiny_models.base, "--metric", "reference_loss", "--json"]
    code, out, err = judge(path, *words)
    assert (code, err) == (0, "")
    assert json.loads(out)["n"] == 4


def test_wrong_words_are_answered_in_one_line(judge, tiny_models, run_folder, tmp_path):
    """With exit code 2 for the command line and 3 for what it names."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare.jsonl").write_text('{"prompt": "q"}\n')
    (tmp_path / "mine.jsonl").write_text('{"prompt": "keep me"}\n')
    tuned = ["--tuned", tiny_models.run / "checkpoint-150"]
    cases = [
        ([tiny_models.gold, *tuned, "--metric", "accuracy"], 2, "no such metric"),
        ([tiny_models.gold, *tuned, "--fail-on", "everything"], 2, "expected words out of worse"),
        ([tiny_models.gold, *tuned, "--keep-by", "score"], 2, "expected loss or gold"),
        (["lm_eval:no_such_task_at_all", *tuned], None, "lm"),
        ([tiny_models.gold, *tuned, "--backend", "llama.cpp"], 2, "expected transformers or vllm"),
        ([tiny_models.gold, *tuned, "--checkpoint", "10"], 2, "is one model, not a run"),
        ([tiny_models.gold, "--tuned", run_folder, "--checkpoint", "77"], 3, "no checkpoint-77 with weights in it"),
        ([tiny_models.gold, "--tuned", run_folder, "--checkpoint", "first"], 2, "expected best, last, all, or steps"),
        ([tiny_models.gold, "--tuned", tmp_path / "empty"], 3, "no weights in it"),
        ([tiny_models.gold, "--tuned", tmp_path / "nowhere"], 3, "no such folder"),
        ([tiny_models.gold, "--tuned", tiny_models.whole], 2, "--base is needed"),
        ([tiny_models.gold, *tuned, "--chat-template", tmp_path / "no.jinja"], 2, "cannot be read"),
        ([tiny_models.gold, *tuned, "--predictions", tmp_path / "mine.jsonl"], 2, "it is not overwritten"),
        ([tmp_path / "bare.jsonl", *tuned], 3, "its only row has no right answer"),
        ([tmp_path / "none.jsonl", *tuned], 3, "no such file"),
        ([tiny_models.gold, *tuned, "--forgetting", tmp_path / "none.txt"], 3, "cannot be read"),
        ([tiny_models.gold, *tuned, "--train", tmp_path / "none.jsonl"], 3, "no such file"),
        ([tiny_models.gold, *tuned, "--base", tiny_models.run / "checkpoint-150"], 3, "could not be"),
        ([tiny_models.gold], 2, "--tuned"),
    ]
    for words, code, message in cases:
        found, out, err = judge(*words)
        assert found == code or (code is None and found in (2, 3)), words
        assert out == ""
        assert message in err, (words, err)
        assert len(err.strip().splitlines()) == 1, err
    assert (tmp_path / "mine.jsonl").read_text() == '{"prompt": "keep me"}\n'


def test_prompts_cannot_steer_the_terminal(judge, tiny_models, tmp_path):
    """Control characters are printed as escapes."""
    rows = [{"prompt": f"\x1b[2J{row['prompt']}", "completion": row["completion"]} for row in tiny.questions(12)]
    gold = tiny.write_rows(tmp_path / "gold.jsonl", rows)
    _, page, _ = judge(gold, "--tuned", tiny_models.whole, "--base", tiny_models.base, "--no-color")
    assert "\x1b" not in page
