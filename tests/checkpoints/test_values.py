"""Values on disk are what torch says they are, for every bit pattern, and the header is what safetensors reads."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from sightline.checkpoints import verify
from sightline.checkpoints.headers import Tensor, read_header
from sightline.checkpoints.values import CHUNK_BYTES, count_values, floats, raw_chunks
from tests.checkpoints.made import lora, make_checkpoint, safetensors_bytes, weights

TORCH_TYPES = {"F16": "float16", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}


def placed(dtype: str, raw: bytes) -> tuple[io.BufferedReader, Tensor]:
    """Return a file of these bytes and the tensor they are."""
    file = io.BufferedReader(io.BytesIO(b"header" + raw))  # type: ignore[arg-type]
    return file, Tensor(dtype, (1,), 6, 6 + len(raw))


@pytest.mark.parametrize("dtype", TORCH_TYPES)
def test_every_bit_pattern_is_what_torch_says(dtype: str) -> None:
    """All 65 536 halves and bfloat16, all 256 of both eight-bit floats: value, NaN, infinity, zero."""
    torch = pytest.importorskip("torch")
    codes = np.arange(256, dtype=np.uint8) if dtype.startswith("F8") else np.arange(65536).astype("<u2")
    values = torch.from_numpy(codes.view(np.int8 if codes.itemsize == 1 else np.int16).copy())
    values = values.view(getattr(torch, TORCH_TYPES[dtype])).float().numpy()
    np.testing.assert_array_equal(floats(memoryview(codes.tobytes()), dtype), values)
    count = count_values(*placed(dtype, codes.tobytes()))
    assert (count.nan, count.infinite) == (int(np.isnan(values).sum()), int(np.isinf(values).sum()))
    for code, value in zip(codes, values, strict=True) if codes.itemsize == 1 else []:
        one = count_values(*placed(dtype, code.tobytes()))
        assert (one.nan, one.infinite, one.is_zero) == (int(np.isnan(value)), int(np.isinf(value)), value == 0.0)


@pytest.mark.parametrize(("dtype", "numpy"), [("F32", "<f4"), ("F64", "<f8")])
def test_wide_floats(dtype: str, numpy: str) -> None:
    values = np.array([0.0, -0.0, 1.5, np.nan, -np.nan, np.inf, -np.inf, 1e-40], numpy)
    count = count_values(*placed(dtype, values.tobytes()))
    assert (count.nan, count.infinite, count.is_zero) == (2, 2, False)
    assert count_values(*placed(dtype, values[:2].tobytes())).is_zero
    np.testing.assert_array_equal(floats(memoryview(values.tobytes()), dtype), values)


def test_last_value_of_a_long_tensor_is_seen() -> None:
    """Pieces are joined without losing one: a NaN in the very last value, after some pieces of zeros."""
    values = np.zeros(CHUNK_BYTES // 4 * 2 + 3, "<f4")
    values[-1] = np.nan
    file, tensor = placed("F32", values.tobytes())
    assert [len(chunk) for chunk in raw_chunks(file, tensor)] == [CHUNK_BYTES, CHUNK_BYTES, 12]
    count = count_values(file, tensor)
    assert (count.nan, count.is_zero) == (1, False)


def test_header_is_what_safetensors_reads(tmp_path: Path) -> None:
    safe_open = pytest.importorskip("safetensors").safe_open
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes(weights()))
    header = read_header(path)
    with safe_open(path, "np") as reader:
        assert set(reader.keys()) == set(header.tensors)
        for name, tensor in header.tensors.items():
            with path.open("rb") as file:
                read = np.concatenate([floats(chunk, tensor.dtype) for chunk in raw_chunks(file, tensor)])
            np.testing.assert_array_equal(read.reshape(tensor.shape), reader.get_tensor(name))
    assert header.parameters == 12 * 4 + 16 + 4 and header.metadata == {"format": "pt"}


@pytest.mark.parametrize(
    ("name", "index", "value", "expected"),
    [
        ("embed.weight", 5, np.nan, "1 NaN in embed.weight"),
        ("layer.bias", 0, -np.inf, "1 infinite values in layer.bias"),
        ("layer.weight", slice(None), 0.0, "nothing but zeros in layer.weight"),
    ],
)
def test_sick_values_are_damage(tmp_path: Path, name: str, index: object, value: float, expected: str) -> None:
    tensors = weights(10)
    tensors[name][1].reshape(-1)[index] = value  # type: ignore[index]
    found = verify(make_checkpoint(tmp_path / "checkpoint-10", 10, tensors=tensors))
    assert not found.intact and found.complete
    assert [str(problem) for problem in found.problems] == [f"model.safetensors: {expected}"]
    assert verify(tmp_path / "checkpoint-10", contents=False).problems == ()


def test_vector_of_zeros_is_a_note(tmp_path: Path) -> None:
    """Biases start at zero and may stay there."""
    tensors = weights(10)
    tensors["layer.bias"][1][:] = 0.0
    found = verify(make_checkpoint(tmp_path / "checkpoint-10", 10, tensors=tensors))
    assert found.problems == () and "layer.bias" in found.notes[0]


def test_frozen_tensors_are_a_note_and_a_copy_is_a_problem(tmp_path: Path) -> None:
    before = make_checkpoint(tmp_path / "checkpoint-10", 10)
    frozen = weights(20) | {"embed.weight": weights(10)["embed.weight"]}
    after = make_checkpoint(tmp_path / "checkpoint-20", 20, tensors=frozen)
    found = verify(after, previous=before)
    assert found.problems == () and "1 of 3 tensors have not moved since checkpoint-10: embed.weight" in found.notes
    copy = make_checkpoint(tmp_path / "checkpoint-30", 30, tensors=frozen)
    (problem,) = verify(copy, previous=after).problems
    assert problem.kind == "unlearned" and verify(copy, previous=after).intact


def test_some_lora_b_at_zero_are_a_note(tmp_path: Path) -> None:
    tensors = lora(1) | {
        "other.lora_B.weight": ("F32", np.zeros((6, 2))),
        "other.lora_A.weight": ("F32", np.ones((2, 5))),
    }
    found = verify(make_checkpoint(tmp_path / "checkpoint-10", 10, adapter=True, tensors=tensors))
    assert found.problems == () and "1 of 2 lora_B are still zero" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("lora_A.weight", "damage"), ("lora_embedding_B", "damage"), ("oft_R.weight", "note"), ("hada_w2_b", "note")],
)
def test_zeros_in_an_adapter_are_damage_only_where_none_start_so(tmp_path: Path, name: str, kind: str) -> None:
    """PEFT starts lora_A and an embedding's B at random, and one matrix of most other kinds at zero."""
    tensors = lora(1) | {f"base_model.model.x.{name}": ("F32", np.zeros((3, 4)))}
    found = verify(make_checkpoint(tmp_path / "checkpoint-10", 10, adapter=True, tensors=tensors))
    assert found.intact is (kind == "note")
    assert any(name in note for note in found.notes) is (kind == "note")


def test_untrained_lora_of_an_embedding(tmp_path: Path) -> None:
    """There A is the half that starts at zero."""
    prefix = "base_model.model.embed_tokens."
    tensors = {
        prefix + "lora_embedding_A": ("F32", np.zeros((2, 5))),
        prefix + "lora_embedding_B": ("F32", np.ones((4, 2))),
    }
    found = verify(make_checkpoint(tmp_path / "checkpoint-10", 10, adapter=True, tensors=tensors))
    assert [problem.kind for problem in found.problems] == ["unlearned"]
