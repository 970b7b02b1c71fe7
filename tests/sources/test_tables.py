"""CSV files, JSON lines and JSON histories: what counts the rows, which curves are judged, what is no log at all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.errors import MalformedLog, UnknownLogFormat
from sightline.runs import Status
from sightline.sources import read, read_runs


def csv_file(tmp_path: Path, text: str, name: str = "metrics.csv") -> Path:
    """Write a CSV file."""
    path = tmp_path / name
    path.write_text(text)
    return path


def test_lightning_rows_are_sparse(tmp_path: Path) -> None:
    """Training and validation stand in different rows; both are counted in steps."""
    text = "epoch,step,train_loss,val_loss\r\n0,49,2.5,\r\n0,99,2.4,\r\n0,99,,2.6\r\n1,149,2.3,\r\n1,199,,2.5\r\n"
    run = read(csv_file(tmp_path, text))
    assert run.curves["loss"].steps.tolist() == [49, 99, 149]
    assert run.curves["eval_loss"].values.tolist() == [2.6, 2.5] and run.step_unit == "step"


def test_keras_rows_are_counted_in_epochs(tmp_path: Path) -> None:
    """A file without steps is counted in epochs; appending a second run starts another."""
    one = "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.0,0.5,1.1\n1,0.6,0.9,0.5,1.0\n"
    runs, _ = read_runs([csv_file(tmp_path, one + "0,0.4,2.0,0.4,2.1\n1,0.5,1.9,0.4,2.0\n2,0.5,1.8,0.4,1.9\n")])
    assert [run.step_unit for run in runs] == ["epoch", "epoch"]
    assert [run.curves["eval_loss"].values.tolist() for run in runs] == [[1.1, 1.0], [2.1, 2.0, 1.9]]


def test_yolo_headers_are_padded_and_the_loss_is_the_sum_of_its_parts(tmp_path: Path) -> None:
    """A detector logs the weighted parts of its loss; their sum is judged."""
    names = ["epoch", "train/box_loss", "train/cls_loss", "val/box_loss", "val/cls_loss", "lr/pg0"]
    rows = [[1, 1.0, 2.0, 1.5, 2.5, 0.1], [2, 0.9, 1.9, 1.4, 2.6, 0.1]]
    text = ",".join(f"{name:>20}" for name in names) + "\n"
    run = read(csv_file(tmp_path, text + "".join(",".join(f"{v:>20}" for v in row) + "\n" for row in rows)))
    assert run.curves["loss"].values.tolist() == pytest.approx([3.0, 2.8])
    assert run.curves["eval_loss"].values.tolist() == pytest.approx([4.0, 4.0])


def test_steps_that_begin_anew_at_every_epoch_count_on(tmp_path: Path) -> None:
    """A batch number inside the epoch becomes a step over the run."""
    rows = [f"{e},{b},{1 / (10 * e + b + 1)}\n" for e in range(3) for b in range(0, 100, 25)]
    run = read(csv_file(tmp_path, "epoch,batch,loss\n" + "".join(rows)))
    steps = run.curves["loss"].steps
    assert len(steps) == 12 and bool((np.diff(steps) > 0).all())


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_quotes_and_comments(tmp_path: Path, delimiter: str) -> None:
    """Any usual delimiter, quoted cells, a comment before the header and a blank line are read."""
    lines = ['"step"', '"train_loss"', '"val loss"'], ["10", '"1.5"', "2.5"], [], ["20", "1.4", "NaN"]
    text = "# made by hand\n\n" + "\n".join(delimiter.join(cells) for cells in lines) + "\n"
    run = read(csv_file(tmp_path, text))
    assert run.curves["loss"].values.tolist() == [1.5, 1.4]
    assert math.isnan(run.curves["eval_loss"].values[1])


@pytest.mark.parametrize(
    "text",
    [
        "name,age\nann,3\n",
        "1,2,3\n4,5,6\n",
        "text,label\nthe loss was great,1\n",
        "loss\n1\n",
        "prompt,loss function\nx,y\n",
    ],
)
def test_other_tables_are_no_logs(tmp_path: Path, text: str) -> None:
    """Rows of data are not taken for a training history."""
    with pytest.raises(UnknownLogFormat):
        read(csv_file(tmp_path, text))


def test_a_header_alone_is_a_typed_error(tmp_path: Path) -> None:
    """A run that stopped before it logged says so."""
    with pytest.raises(MalformedLog, match="no row with a number"):
        read(csv_file(tmp_path, "epoch,step,train_loss,val_loss\n"))


def test_rows_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    """A row with too many cells is left out and named; a cut last row is not read."""
    run = read(csv_file(tmp_path, "step,loss\n1,2.0\n2,1.9,7,8\n3,1.8\n4,1"))
    assert run.curves["loss"].steps.tolist() == [1, 3, 4]
    assert "1 rows" in run.damage[0]


def jsonl_file(tmp_path: Path, rows: list[Any], name: str = "trainer_log.jsonl") -> Path:
    """Write a file with one JSON value a line."""
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_llama_factorys_log(tmp_path: Path) -> None:
    """Steps, the planned total and the end are taken from LLaMA-Factory's names; null is no value."""
    rows = [{"current_steps": s, "total_steps": 40, "loss": 1.0, "eval_loss": None, "lr": 1e-4} for s in (10, 20, 30)]
    run = read(jsonl_file(tmp_path, [*rows, {"current_steps": 40, "total_steps": 40, "eval_loss": 1.5}]))
    assert run.curves["loss"].steps.tolist() == [10, 20, 30] and run.curves["eval_loss"].at(40) == 1.5
    assert run.max_steps == 40 and run.status is Status.FINISHED
    assert "learning_rate" in run.curves


def test_ms_swifts_log(tmp_path: Path) -> None:
    """The step that ms-swift writes together with the total is taken apart."""
    run = read(jsonl_file(tmp_path, [{"loss": 2.0, "global_step/max_steps": f"{s}/100"} for s in (5, 10)]))
    assert run.curves["loss"].steps.tolist() == [5, 10] and run.max_steps == 100


def test_broken_lines_are_counted_and_read_around(tmp_path: Path) -> None:
    """Torn lines, other values and NaN do not hide the rest."""
    rows = [{"step": 1, "loss": 1.0}, "{broken", '"text"', '{"step": 2, "loss": NaN}', "", {"step": 3, "loss": 0.5}]
    run = read(jsonl_file(tmp_path, [*rows, '{"step": 4, "los']))
    assert run.curves["loss"].steps.tolist() == [1, 2, 3] and math.isnan(run.curves["loss"].values[1])
    assert "3 lines" in run.damage[0]


def test_nested_objects_and_several_evaluation_sets(tmp_path: Path) -> None:
    """Nested metrics are named by their path; several evaluation sets stay several curves."""
    rows = [{"step": s, "train": {"loss": 1.0}, "val": {"math": {"loss": 2.0}, "code": {"loss": 3.0}}} for s in (1, 2)]
    run = read(jsonl_file(tmp_path, rows))
    assert {"loss", "val/math/loss", "val/code/loss"} <= set(run.curves)
    assert run.eval_metric == "val/math/loss"
    assert read(tmp_path / "trainer_log.jsonl", eval_metric="val/code/loss").eval_metric == "val/code/loss"


def test_two_processes_writing_one_file_give_each_step_once(tmp_path: Path) -> None:
    """Interleaved doubles keep the steps in order, and the log says what is wrong with it."""
    rows = [{"step": s, "loss": 1.0} for s in range(10, 2000, 10)]
    mixed = [row for pair in zip(rows[1:], rows, strict=False) for row in pair]
    run = read(jsonl_file(tmp_path, mixed))
    assert bool((np.diff(run.curves["loss"].steps) > 0).all()) and len(run.curves["loss"]) >= 195
    assert any("several processes" in sentence for sentence in run.damage)


@pytest.mark.parametrize(
    "row",
    [{"text": "the loss", "label": 1}, {"prompt": "x", "completion": "y"}, {"loss": "cross_entropy", "id": 1}, [1, 2]],
)
def test_rows_of_data_are_no_logs(tmp_path: Path, row: Any) -> None:
    """A data set in JSON lines is not taken for a training history."""
    with pytest.raises(UnknownLogFormat):
        read(jsonl_file(tmp_path, [row] * 5, "train.jsonl"))


@pytest.mark.parametrize(
    ("value", "steps"),
    [
        ([{"step": 5, "train_loss": 2.0, "dev_loss": 2.5}, {"step": 10, "train_loss": 1.0, "dev_loss": 2.0}], [5, 10]),
        ({"epochs": [1, 2], "train_loss": [2.0, 1.0], "dev_loss": [2.5, 2.0]}, [1, 2]),
        ({"train_losses": [2.0, 1.0], "val_losses": [2.5, 2.0]}, [1, 2]),
        ({"config": {"lr": 1}, "history": [{"step": 5, "loss": 2.0}, {"step": 10, "loss": 1.0}]}, [5, 10]),
        ({"history": {"loss": [2.0, 1.0], "val_loss": [2.5, 2.0]}, "best": 1}, [1, 2]),
    ],
    ids=["entries", "lists", "plural", "entries inside", "lists inside"],
)
def test_json_histories_of_every_shape(tmp_path: Path, value: Any, steps: list[int]) -> None:
    """Lists of entries and lists by metric are read, at the top or inside."""
    path = tmp_path / "history.json"
    path.write_text(json.dumps(value, indent=2))
    run = read(path)
    assert run.curves["loss"].steps.tolist() == steps and run.curves["loss"].values.tolist() == [2.0, 1.0]


def test_fewer_evaluations_than_training_losses_stand_at_the_end_of_their_share(tmp_path: Path) -> None:
    """Ten training losses and two validation losses: the evaluations came after the fifth and the tenth."""
    path = tmp_path / "losses.json"
    path.write_text(json.dumps({"train_losses": [1.0] * 10, "val_losses": [2.0, 3.0]}))
    assert read(path).curves["eval_loss"].steps.tolist() == [5, 10]


@pytest.mark.parametrize(
    "value", [{"train_loss": 0.5, "epoch": 3.0}, {"loss_type": "nll"}, [1, 2, 3], {"a": {"b": []}}]
)
def test_results_and_settings_are_no_histories(tmp_path: Path, value: Any) -> None:
    """all_results.json and a configuration name a loss and tell no run."""
    path = tmp_path / "all_results.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UnknownLogFormat):
        read(path)


ROWS = st.lists(
    st.tuples(st.integers(1, 30), st.floats(-1e6, 1e6) | st.none(), st.floats(0, 1e6) | st.none()),
    min_size=2,
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_random_rows_are_read_back_from_every_format(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float | None, float | None]]
) -> None:
    """The same sparse rows written as CSV, JSON lines and a JSON list read to the same curves."""
    steps = np.cumsum([gap for gap, _, _ in rows]).tolist()
    entries = [
        {"step": step, **({"train_loss": t} if t is not None else {}), **({"eval_loss": e} if e is not None else {})}
        for step, (_, t, e) in zip(steps, rows, strict=True)
    ]
    expected = {
        "loss": [(step, t) for step, (_, t, _) in zip(steps, rows, strict=True) if t is not None],
        "eval_loss": [(step, e) for step, (_, _, e) in zip(steps, rows, strict=True) if e is not None],
    }
    if not any(expected.values()):
        return
    folder = tmp_path_factory.mktemp("rows")
    cells = (
        ",".join(["" if v is None else repr(v) for v in (s, t, e)]) for s, (_, t, e) in zip(steps, rows, strict=True)
    )
    paths = [
        csv_file(folder, "step,train_loss,eval_loss\n" + "\n".join(cells) + "\n"),
        jsonl_file(folder, entries),
    ]
    (folder / "rows.json").write_text(json.dumps(entries))
    for path in [*paths, folder / "rows.json"]:
        curves = read(path).curves
        found = {
            name: list(zip(curves[name].steps.tolist(), curves[name].values.tolist(), strict=True))
            for name in expected
            if name in curves
        }
        assert found == {name: points for name, points in expected.items() if points}
