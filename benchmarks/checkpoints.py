"""What verifying a checkpoint costs: hashes on one core, the manifest, values, and the list of a long run.

Run by hand: ``python benchmarks/checkpoints.py [--megabytes 1024] [--json PATH]``. Seconds are the processor's, on one
core, with files in the page cache: a disk that is slower than that decides instead.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' makers of checkpoints

from tests.checkpoints.made import history, make_checkpoint, make_run, safetensors_bytes

from sightline.checkpoints import damaged_files, verify, write_manifest
from sightline.checkpoints.differences import compare_weights
from sightline.checkpoints.listing import list_checkpoints

TARGET_MB_S = 500.0
REPEATS = 3


def main() -> int:
    """Measure, print a table, and write JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512, help="size of the weights")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sightline-bench-") as folder:
        figures = {
            "cpu_count": os.cpu_count(),
            "openssl": ssl.OPENSSL_VERSION,
            "hash_mb_s": hash_speeds(options.megabytes),
            **checkpoint_speeds(Path(folder), options.megabytes),
            **listing_speeds(Path(folder)),
        }
    for name, value in figures.items():
        print(f"{name:<28} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0 if figures["write_manifest_mb_s"] > TARGET_MB_S else 1


def hash_speeds(megabytes: int) -> dict[str, float]:
    """Return the speed of each hash that could have been chosen, in MB/s on one core."""
    data = np.random.default_rng(0).bytes(min(megabytes, 256) * 1_000_000)
    names = ("sha256", "sha512", "blake2b", "blake2s", "sha1", "sha3_256")
    return {
        name: round(len(data) / 1e6 / fastest(lambda name=name: hashlib.new(name, data).digest())) for name in names
    }


def checkpoint_speeds(folder: Path, megabytes: int) -> dict[str, Any]:
    """Return how fast a checkpoint is hashed, verified and compared, in MB/s of its size."""
    made = [folder / "run" / f"checkpoint-{step}" for step in (10, 20)]
    for step, path in zip((10, 20), made, strict=True):
        make_checkpoint(path, step, history({10: 2.0, 20: 1.0}, until=step), tensors=large(megabytes, step))
    size = sum(file.stat().st_size for file in made[0].iterdir()) / 1e6
    manifest = write_manifest(made[0])
    return {
        "checkpoint_mb": round(size),
        "write_manifest_mb_s": round(size / fastest(lambda: write_manifest(made[0]))),
        "damaged_files_mb_s": round(size / fastest(lambda: damaged_files(made[0], manifest))),
        "verify_values_mb_s": round(size / fastest(lambda: verify(made[1], previous=made[0]))),
        "verify_all_mb_s": round(size / fastest(lambda: verify(made[0]))),
        "verify_quick_s": fastest(lambda: verify(made[1], contents=False)),
        "diff_mb_s": round(size / fastest(lambda: compare_weights(made[0], made[1]))),
    }


def large(megabytes: int, seed: int) -> dict[str, tuple[str, np.ndarray]]:
    """Return bfloat16 tensors of 8 MB each."""
    random = np.random.default_rng(seed)
    count = max(1, megabytes // 8)
    return {f"layers.{i}.weight": ("BF16", random.integers(0x3C00, 0x3E00, (2000, 2000), "<u2")) for i in range(count)}


def listing_speeds(folder: Path) -> dict[str, float]:
    """Return how long the list of 100 checkpoints takes, each with a log of its own."""
    evals = {step: 3.0 - step / 1000 for step in range(10, 1010, 10)}
    tensors = {f"layers.{i}.weight": ("F32", np.ones((4, 4))) for i in range(300)}
    assert safetensors_bytes(tensors)
    run = make_run(folder / "long", evals, tensors=tensors)
    return {"list_100_checkpoints_s": fastest(lambda: list_checkpoints(run))}


def fastest(work: Callable[[], Any]) -> float:
    """Return the processor seconds of the fastest of some repeats: other work on the machine does not count."""
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return round(min(times), 4)


if __name__ == "__main__":
    sys.exit(main())
