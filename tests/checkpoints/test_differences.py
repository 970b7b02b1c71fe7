"""How far weights moved is what dense arithmetic says, in every type, shard by shard."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sightline.checkpoints.differences import compare_weights
from sightline.errors import CheckpointError
from tests.checkpoints.made import lora, make_checkpoint, safetensors_bytes, weights


def test_relative_change_is_the_ratio_of_norms(tmp_path: Path) -> None:
    one, other = weights(10), weights(20)
    other["layer.bias"] = one["layer.bias"]
    difference = compare_weights(
        make_checkpoint(tmp_path / "checkpoint-10", 10, tensors=one),
        make_checkpoint(tmp_path / "checkpoint-20", 20, tensors=other),
    )
    arrays = [{name: array.astype("<f4").astype(float) for name, (_, array) in side.items()} for side in (one, other)]
    for change in difference.changes:
        before, after = arrays[0][change.name], arrays[1][change.name]
        assert change.relative == pytest.approx(np.linalg.norm(after - before) / np.linalg.norm(before))
        assert change.largest == pytest.approx(np.abs(after - before).max())
        assert change.share_changed == (before != after).mean()
    assert difference.changes[-1].name == "layer.bias" and difference.moved == 2
    flat = [np.concatenate([side[name].ravel() for name in sorted(side)]) for side in arrays]
    assert difference.relative == pytest.approx(np.linalg.norm(flat[1] - flat[0]) / np.linalg.norm(flat[0]))


def test_sharded_half_precision_against_one_file(tmp_path: Path) -> None:
    """The same values in two shards of bfloat16 and in one float32 file have not moved."""
    values = {name: array.astype("<f4").view("<u4") >> 16 for name, (_, array) in weights(1).items()}
    one = make_checkpoint(tmp_path / "checkpoint-1", 1)
    (one / "model.safetensors").unlink()
    names = sorted(values)
    shards = {"model-00001-of-00002.safetensors": names[:1], "model-00002-of-00002.safetensors": names[1:]}
    for shard, held in shards.items():
        (one / shard).write_bytes(safetensors_bytes({name: ("BF16", values[name]) for name in held}))
    index = {"metadata": {}, "weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (one / "model.safetensors.index.json").write_text(json.dumps(index))
    wide = {name: ("F32", (bits.astype("<u4") << 16).view("<f4")) for name, bits in values.items()}
    other = make_checkpoint(tmp_path / "checkpoint-2", 2, tensors=wide)
    difference = compare_weights(one, other)
    assert len(difference.changes) == 3 and difference.moved == 0 and difference.relative == 0.0


def test_product_of_lora_matrices_is_that_of_dense_ones(tmp_path: Path) -> None:
    one, other = lora(1), lora(2)
    difference = compare_weights(
        make_checkpoint(tmp_path / "checkpoint-1", 1, adapter=True, tensors=one),
        make_checkpoint(tmp_path / "checkpoint-2", 2, adapter=True, tensors=other),
    )
    a, b = sorted(one)
    dense = [side[b][1].astype("<f4").astype(float) @ side[a][1].astype("<f4").astype(float) for side in (one, other)]
    expected = np.linalg.norm(dense[1] - dense[0]) / np.linalg.norm(dense[0])
    assert difference.adapter_relative == pytest.approx(expected)


def test_turned_factors_leave_the_product_where_it_was(tmp_path: Path) -> None:
    """A and B may turn against each other: both move, what the adapter does has not."""
    one = lora(1)
    a, b = sorted(one)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    other = {a: ("F32", turn @ one[a][1]), b: ("F32", one[b][1] @ turn.T)}
    difference = compare_weights(
        make_checkpoint(tmp_path / "checkpoint-1", 1, adapter=True, tensors=one),
        make_checkpoint(tmp_path / "checkpoint-2", 2, adapter=True, tensors=other),
    )
    assert difference.relative > 0.5
    assert difference.adapter_relative is not None and difference.adapter_relative < 1e-6


def test_adapter_and_whole_model_cannot_be_compared(tmp_path: Path) -> None:
    one, other = (
        make_checkpoint(tmp_path / "checkpoint-1", 1, adapter=True),
        make_checkpoint(tmp_path / "checkpoint-2", 2),
    )
    with pytest.raises(CheckpointError, match="no tensor in common"):
        compare_weights(one, other)


def test_what_only_one_has_is_named(tmp_path: Path) -> None:
    more = weights(2) | {"head.weight": ("F32", np.ones((2, 2))), "layer.bias": ("F32", np.ones(5))}
    difference = compare_weights(
        make_checkpoint(tmp_path / "checkpoint-1", 1), make_checkpoint(tmp_path / "checkpoint-2", 2, tensors=more)
    )
    assert difference.only_second == ("head.weight",) and difference.only_first == ()
    assert difference.reshaped == ("layer.bias",) and len(difference.changes) == 2


def test_long_tensors_of_one_file_are_compared_in_turns(tmp_path: Path) -> None:
    """A checkpoint against itself: both sides are read from the same open file, piece after piece."""
    tensors = {"long": ("F32", np.random.default_rng(0).normal(size=200_001)), "short": ("F16", np.ones(3))}
    folder = make_checkpoint(tmp_path / "checkpoint-1", 1, tensors=tensors)
    difference = compare_weights(folder, folder)
    assert difference.moved == 0 and len(difference.changes) == 2
