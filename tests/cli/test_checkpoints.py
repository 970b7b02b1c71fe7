"""`sightline checkpoints`: the list and its actions, their JSON and their exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sightline.cli import main
from tests.checkpoints.made import contents, lora, make_checkpoint, make_run

EVALS = {10: 3.0, 20: 2.0, 30: 2.5, 40: 2.6}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run", EVALS)


def page(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["checkpoints", *map(str, words)])
    said = capsys.readouterr()
    return code, said.out + said.err


def document(capsys: pytest.CaptureFixture[str], *words: object) -> dict:
    code, said = page(capsys, *words, "--json")
    return {"code": code} | json.loads(said)


def test_list_shows_steps_losses_best_and_last(run: Path, capsys) -> None:
    code, said = page(capsys, run)
    assert code == 0
    lines = {line.split()[0]: line for line in said.splitlines() if line.strip()[:2].isdigit()}
    assert set(lines) == {"10", "20", "30", "40"}
    assert "2.000" in lines["20"] and "best" in lines["20"] and "last" in lines["40"]
    assert "checkpoint-20 is the best" in said


def test_list_as_json(run: Path, capsys) -> None:
    told = document(capsys, run)
    assert told["code"] == 0 and told["last"] == "checkpoint-40"
    assert told["best"]["step"] == 20 and told["best"]["unsaved"] is None
    first = told["checkpoints"][0]
    assert first["eval_loss"] == 3.0 and first["loss"] == 3.1 and first["epoch"] == 1.0
    assert first["complete"] and all(first["holds"].values()) and first["kind"] == "full"
    assert first["deleting"]["loses"] is None and first["deleting"]["frees_bytes"] > 0
    assert told["checkpoints"][1]["deleting"]["loses"] == "0.5 nats"
    assert told["checkpoints"][3]["deleting"]["loses"] == "10 steps"
    assert told["disk"]["saves_to_come"] == 6  # of 10 steps each until 100


def test_adapters_name_their_base(tmp_path: Path, capsys) -> None:
    run = make_run(tmp_path / "run", EVALS, adapter=True)
    config = run / "checkpoint-30" / "adapter_config.json"
    config.write_text(config.read_text().replace("org/base", "org/other"))
    told = {c["step"]: c for c in document(capsys, run)["checkpoints"]}
    assert told[20]["kind"] == "adapter" and told[20]["base"] == {
        "name": "org/base",
        "revision": None,
        "is_same": True,
    }
    assert told[30]["base"]["is_same"] is False
    assert "org/other, which is NOT the base of this run" in " ".join(page(capsys, run)[1].split())


def test_incomplete_checkpoint_says_what_it_lacks(run: Path, capsys) -> None:
    (run / "checkpoint-40" / "scheduler.pt").unlink()
    told = document(capsys, run)
    assert told["last"] == "checkpoint-30"
    assert told["checkpoints"][3]["missing"] == ["the scheduler (scheduler.pt)"]
    assert "checkpoint-40 lacks the scheduler" in page(capsys, run)[1]


def test_verify_exits_1_and_names_the_flipped_bit(run: Path, capsys) -> None:
    from sightline.checkpoints import write_manifest

    write_manifest(run / "checkpoint-20")
    assert page(capsys, run, "verify")[0] == 0
    weights = run / "checkpoint-20" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 16
    weights.write_bytes(content)
    code, said = page(capsys, run, "verify")
    assert code == 1 and "checkpoint-20  damaged" in said and "model.safetensors: its bytes are not" in said
    assert page(capsys, run, "verify", "10", "checkpoint-30")[0] == 0
    assert page(capsys, run / "checkpoint-20", "verify")[0] == 1
    assert page(capsys, run, "verify", "--quick")[0] == 0


def test_verify_names_weights_that_learned_nothing(tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    make_checkpoint(run / "checkpoint-10", 10, adapter=True, tensors=lora(1))
    make_checkpoint(run / "checkpoint-20", 20, adapter=True, tensors=lora(1))
    make_checkpoint(run / "checkpoint-30", 30, adapter=True, tensors=lora(1, zero_b=True))
    told = document(capsys, run, "verify")
    assert told["code"] == 1
    first, same, zero = (c["problems"] for c in told["checkpoints"])
    assert first == []
    assert [(p["kind"], p["message"]) for p in same] == [("unlearned", "every weight is the same as in checkpoint-10")]
    assert "lora_B are still zero" in zero[0]["message"] and told["checkpoints"][2]["intact"]


def test_best_gives_a_path_on_its_first_line(run: Path, capsys) -> None:
    code, said = page(capsys, run, "best")
    assert code == 0 and said.splitlines()[0] == str(run / "checkpoint-20")


def test_best_of_a_run_without_losses_is_exit_3(tmp_path: Path, capsys) -> None:
    make_checkpoint(tmp_path / "run" / "checkpoint-1", 1)
    assert document(capsys, tmp_path / "run", "best") == {
        "code": 3,
        "sightline": 1,
        "path": str(tmp_path / "run"),
        "best": None,
    }


def test_prune_deletes_only_with_yes(run: Path, capsys) -> None:
    before = contents(run)
    code, said = page(capsys, run, "prune")
    assert code == 0 and "--yes" in said and contents(run) == before
    told = document(capsys, run, "prune", "--yes")
    assert told["done"] and [d["checkpoint"] for d in told["delete"]] == ["checkpoint-10", "checkpoint-30"]
    assert sorted(p.name for p in run.iterdir()) == ["checkpoint-20", "checkpoint-40"]
    freed = sum(len(content) for name, content in before.items() if name.startswith(("checkpoint-10", "checkpoint-30")))
    assert told["frees_bytes"] == freed


def test_diff_gives_the_tensor_that_moved(run: Path, capsys) -> None:
    told = document(capsys, run, "diff", "10", "checkpoint-20")
    assert told["code"] == 0 and told["moved"] == 3
    assert {t["name"] for t in told["tensors"]} == {"embed.weight", "layer.weight", "layer.bias"}
    same = document(capsys, run, "diff", "10", "10")
    assert same["moved"] == 0 and same["relative"] == 0.0


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nowhere"], 3),
        (["."], 3),
        (["run", "purge"], 2),
        (["run", "diff", "10"], 2),
        (["run", "diff", "10", "77"], 3),
        (["run", "verify", "77"], 3),
        (["run", "best", "20"], 2),
        (["run", "--yes"], 2),
        (["run", "prune", "--quick"], 2),
        (["run", "prune", "--top", "0"], 2),
    ],
)
def test_wrong_use_is_one_line(words: list[str], code: int, run: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(run.parent)
    given, said = page(capsys, *words)
    assert given == code
    assert len(said.strip().splitlines()) == 1 and said.startswith("sightline: ")


def test_folder_of_runs_names_those_with_checkpoints(run: Path, capsys) -> None:
    assert "there are some in run" in page(capsys, run.parent)[1]


@pytest.mark.parametrize("words", [[], ["best"], ["verify"], ["diff", "10", "20"], ["prune"]])
def test_every_key_is_documented(run: Path, capsys, words: list[str]) -> None:
    text = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    section = text.split("### JSON of checkpoints\n")[1].split("\n## ")[0]
    told = document(capsys, run, *words)
    inner = told["checkpoints"][0] if "checkpoints" in told else {}
    for key in (set(told) | set(inner)) - {"code", "sightline"}:
        assert f"`{key}`" in section, key


def test_folder_of_a_model_alone_can_be_verified(run: Path, tmp_path: Path, capsys) -> None:
    """`best`, or any model, has no step and needs no training states."""
    (tmp_path / "model").mkdir()
    for name in ("model.safetensors", "config.json"):
        (tmp_path / "model" / name).write_bytes((run / "checkpoint-20" / name).read_bytes())
    told = document(capsys, tmp_path / "model", "verify")
    assert told["code"] == 0 and told["checkpoints"][0]["weights_only"]
    (tmp_path / "model" / "config.json").write_text("{")
    assert document(capsys, tmp_path / "model", "verify")["checkpoints"][0]["problems"][0]["file"] == "config.json"
    (tmp_path / "model" / "model.safetensors").unlink()
    assert page(capsys, tmp_path / "model", "verify")[0] == 3


def test_best_folder_of_a_run_is_verified_with_it(run: Path, capsys) -> None:
    (run / "best").mkdir()
    (run / "best" / "model.safetensors").write_bytes((run / "checkpoint-20" / "model.safetensors").read_bytes()[:-1])
    told = document(capsys, run, "verify")
    assert told["code"] == 1 and [c["intact"] for c in told["checkpoints"]] == [True] * 4 + [False]


def test_one_checkpoint_is_no_run(run: Path, capsys) -> None:
    code, said = page(capsys, run / "checkpoint-20")
    assert code == 3 and "it is one itself" in said
