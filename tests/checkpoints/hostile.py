"""Checkpoints made to hurt whoever looks at them, and a process of its own that looks at them and is watched.

``make_all`` makes the cases; ``python -m tests.checkpoints.hostile FOLDER`` lists and verifies each and prints a JSON
document: what was said, the processor seconds, the files opened outside the case's folder, and the largest memory of
that process.
"""

from __future__ import annotations

import json
import os
import pkgutil
import resource
import struct
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import sightline.checkpoints
import sightline.sources
from tests.checkpoints.made import file_of, history, make_checkpoint, safetensors_bytes, weights

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
CASES: dict[str, Callable[[Path], None]] = {}


def case(make: Callable[[Path], None]) -> Callable[[Path], None]:
    CASES[make.__name__] = make
    return make


def weights_file(folder: Path, content: bytes, size: int | None = None) -> None:
    """Put a safetensors file in the place of the good one; ``size`` makes the rest of it a hole."""
    with (folder / "model.safetensors").open("wb") as file:
        file.write(content)
        if size is not None:
            file.truncate(size)


def header_case(name: str, *args: Any) -> None:
    def make(folder: Path) -> None:
        weights_file(folder, file_of(*args))

    CASES[name] = make


@case
def header_length_of_2_to_the_63(folder: Path) -> None:
    weights_file(folder, struct.pack("<Q", 2**63) + b"{}")


@case
def header_of_101_megabytes(folder: Path) -> None:
    weights_file(folder, struct.pack("<Q", 101_000_000) + b"{", 102_000_000)


@case
def header_of_99_megabytes(folder: Path) -> None:
    weights_file(folder, struct.pack("<Q", 99_000_000) + b"{", 99_000_008)


header_case("header_is_no_json", b"{not json}")
header_case("header_is_a_list", [1, 2])
header_case("tensors_overlap", {"a": F32, "b": F32 | {"data_offsets": [4, 12]}}, bytes(12))
header_case("tensors_leave_a_gap", {"a": F32, "b": F32 | {"data_offsets": [12, 20]}}, bytes(20))
header_case("offsets_out_of_range", {"a": F32 | {"data_offsets": [0, 2**62], "shape": [2**60]}}, bytes(8))
header_case("offsets_negative", {"a": F32 | {"data_offsets": [-8, 0]}}, bytes(8))
header_case("offsets_backwards", {"a": F32 | {"data_offsets": [8, 0]}}, bytes(8))
header_case("offsets_are_no_integers", {"a": F32 | {"data_offsets": [0.0, True]}}, bytes(8))
header_case("shape_does_not_fit", {"a": F32 | {"shape": [3]}}, bytes(8))
header_case("shape_overflows", {"a": F32 | {"shape": [2**63 - 1] * 60}}, bytes(8))
header_case("shape_of_100000_dimensions", {"a": F32 | {"shape": [2**62] * 100_000}}, bytes(8))
header_case("unknown_type", {"a": F32 | {"dtype": "F33"}}, bytes(8))
header_case("type_is_a_list", {"a": F32 | {"dtype": ["F32"]}}, bytes(8))
header_case("entry_is_a_number", {"a": 3}, bytes(8))
header_case(
    "a_tensor_named_twice", b'{"a":' + json.dumps(F32).encode() + b',"a":' + json.dumps(F32).encode() + b"}", bytes(8)
)
header_case("bytes_after_the_last_tensor", {"a": F32}, bytes(9))
header_case("nesting_of_100000", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
header_case("sixteen_megabytes_of_lists", b'{"a":[' + b"[]," * 5_000_000 + b"[]]}")
header_case("sixteen_megabytes_of_numbers", b'{"a":[' + b"0," * 7_000_000 + b"0]}")
header_case("sixteen_megabytes_in_one_name", b'{"' + b"a" * 16_000_000 + b'":3}')
header_case(
    "five_thousand_digits", b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}', bytes(8)
)


@case
def a_million_tensors(folder: Path) -> None:
    entry = '"t%07d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    weights_file(folder, file_of(("{" + ",".join(entry % i for i in range(1_000_000)) + "}").encode()))


@case
def two_hundred_thousand_tensors(folder: Path) -> None:
    entry = '"%06d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    weights_file(folder, file_of(("{" + ",".join(entry % i for i in range(200_000)) + "}").encode()))


def indexed(folder: Path, shard: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": {"a": shard}}))


@case
def shard_is_a_link_to_etc_passwd(folder: Path) -> None:
    indexed(folder, "model-00001-of-00001.safetensors")
    (folder / "model-00001-of-00001.safetensors").symlink_to("/etc/passwd")


@case
def shard_is_a_link_to_good_weights_outside(folder: Path) -> None:
    indexed(folder, "model-00001-of-00001.safetensors")
    (folder.parents[1] / "x").write_bytes(safetensors_bytes(weights()))
    (folder / "model-00001-of-00001.safetensors").symlink_to(folder.parents[1] / "x")


@case
def index_names_a_file_outside(folder: Path) -> None:
    indexed(folder, "../../x")
    (folder.parents[1] / "x").write_bytes(safetensors_bytes(weights()))


@case
def index_names_an_absolute_path(folder: Path) -> None:
    indexed(folder, "/etc/passwd")


@case
def index_names_numbers(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": 3, "b": null, "c": ["x"]}}')


@case
def index_of_deep_nesting(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ' + "[" * 100_000)


@case
def index_is_a_link(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").symlink_to("/etc/passwd")


@case
def weights_are_a_link_to_etc_passwd(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/etc/passwd")


@case
def weights_are_a_pipe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


@case
def weights_are_a_folder(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()


@case
def sparse_weights_of_100_gigabytes(folder: Path) -> None:
    size = 100 * 2**30
    header = {"a": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}}
    content = file_of(header)
    weights_file(folder, content, len(content) + size)


@case
def sparse_optimizer_of_100_gigabytes(folder: Path) -> None:
    os.truncate(folder / "optimizer.pt", 100 * 2**30)


@case
def sparse_trainer_state_of_100_gigabytes(folder: Path) -> None:
    os.truncate(folder / "trainer_state.json", 100 * 2**30)


@case
def trainer_state_of_deep_nesting(folder: Path) -> None:
    (folder / "trainer_state.json").write_text("[" * 1_000_000)


@case
def trainer_state_is_a_link(folder: Path) -> None:
    (folder / "trainer_state.json").unlink()
    (folder / "trainer_state.json").symlink_to("/etc/passwd")


@case
def zip_directory_of_4_gigabytes(folder: Path) -> None:
    content = (folder / "optimizer.pt").read_bytes()
    (folder / "optimizer.pt").write_bytes(content[:-12] + struct.pack("<III", 0xFFFFFFFE, 0, 0)[:10] + bytes(2))


@case
def zip64_directory_beyond_everything(folder: Path) -> None:
    end64 = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 2**64 - 1, 2**64 - 1, 2**64 - 1, 2**64 - 1)
    locator = b"PK\x06\x07" + struct.pack("<IQI", 0, 2**64 - 1, 1)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    (folder / "optimizer.pt").write_bytes(b"PK\x03\x04" + bytes(100) + end64 + locator + end)


@case
def zip_records_that_overlap(folder: Path) -> None:
    payload = os.urandom(1 << 20)
    local = b"PK\x03\x04" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, len(payload), len(payload), 1, 0) + b"a"
    entry = b"PK\x01\x02" + struct.pack(
        "<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, len(payload), len(payload), 1, 0, 0, 0, 0, 0, 0
    )
    directory = (entry + b"a") * 60_000
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 60_000, 60_000, len(directory), len(local) + len(payload), 0)
    (folder / "optimizer.pt").write_bytes(local + payload + directory + end)


@case
def manifest_names_files_outside(folder: Path) -> None:
    import hashlib

    files = {"../../x": {"size": 1, "hash": "0"}, "/etc/passwd": {"size": 1, "hash": "0"}}
    digest = hashlib.sha256(json.dumps(["sha256", files, []], sort_keys=True, separators=(",", ":")).encode())
    told = {"sightline_manifest": 1, "algorithm": "sha256", "files": files, "dropped": [], "digest": digest.hexdigest()}
    (folder / "sightline_manifest.json").write_text(json.dumps(told))


@case
def manifest_is_a_link(folder: Path) -> None:
    (folder / "sightline_manifest.json").symlink_to("/etc/passwd")


@case
def weights_may_not_be_read(folder: Path) -> None:
    (folder / "model.safetensors").chmod(0)


@case
def folder_may_not_be_listed(folder: Path) -> None:
    folder.chmod(0)


@case
def folder_may_not_be_entered(folder: Path) -> None:
    folder.chmod(0o444)


def look(folder: Path) -> dict[str, Any]:
    """List and verify one case as the command does; return what was said of it and what that took."""
    from sightline.checkpoints.listing import list_checkpoints
    from sightline.checkpoints.verify import verify

    opened: list[str] = []
    _WATCHED.append(opened)
    began = time.process_time()
    listing = list_checkpoints(folder)
    quick = verify(folder / "checkpoint-10", contents=False)
    whole = verify(folder / "checkpoint-10")
    seconds = time.process_time() - began
    _WATCHED.pop()
    return {
        "complete_in_list": listing.checkpoints[0].parts.is_complete,
        "quick": [str(problem) for problem in quick.problems],
        "problems": [str(problem) for problem in whole.problems],
        "seconds": seconds,
        "outside": sorted({path for path in opened if not Path(path).is_relative_to(folder)}),
    }


_WATCHED: list[list[str]] = []


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if event == "open" and _WATCHED and isinstance(args[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(args[0])).absolute()
        refuses_links = bool(args[2] & os.O_NOFOLLOW)
        _WATCHED[-1].append(str(path.parent.resolve() / path.name if refuses_links else path.resolve()))


@contextmanager
def nobody():
    """Give up the rights of root, to whom every file is open."""
    is_root = os.geteuid() == 0
    if is_root:
        os.setegid(65534)
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
            os.setegid(0)


def make_all(root: Path) -> None:
    """Make every case two folders down, so that ../../x is a file of its own, and a good one."""
    for name, make in {"good": lambda folder: None, **CASES}.items():
        folder = root / name / "run"
        make(make_checkpoint(folder / "checkpoint-10", 10, history({10: 2.0})))


def main(root: Path) -> None:
    for package in (sightline.checkpoints, sightline.sources):  # what a look imports is imported before it counts
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    sys.addaudithook(_watch)
    look(root / "good" / "run")
    found = {}
    with nobody():
        for name in CASES:
            found[name] = look(root / name / "run")
    print(json.dumps({"cases": found, "peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """Return the largest memory of this process; ru_maxrss would begin with what its parent had."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
