"""Reading logs: event files, states, captured terminals, a folder of a thousand runs, a log that grows.

Each rival is measured in the same run, alternating, best of several; compared are ratios. Speeds are of CPU time.

    python benchmarks/reading.py [--points 120000] [--runs 1000] [--large] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "sources"))

import orjson
from writers import event, event_file

from sightline.sources import console, tensorboard, trainer_state
from sightline.sources.follow import Follower

TAGS = ("train/loss", "train/grad_norm", "train/learning_rate", "train/epoch")


def best_s(run: Callable[[], object], repeats: int = 5) -> float:
    """Return the shortest CPU time of several runs, in seconds."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        run()
        times.append(time.process_time() - began)
    return min(times)


def speed(path: Path, read: Callable[[Path], object], state: Path, repeats: int = 5) -> float:
    """Return the bytes a second of a reader by those of orjson's parse of a state, taken in turns."""
    ours, theirs = [], []
    for _ in range(repeats):
        theirs.append(best_s(lambda: orjson.loads(state.read_bytes()), 1))
        ours.append(best_s(lambda: read(path), 1))
    return round(path.stat().st_size / min(ours) / (state.stat().st_size / min(theirs)), 2)


def entries(count: int) -> list[dict[str, float]]:
    """Return what a Trainer logs: a training loss every ten steps, an evaluation every two hundred."""
    logged: list[dict[str, float]] = []
    for i in range(1, count + 1):
        step, epoch = 10 * i, round(i / 1000, 2)
        rest = {"grad_norm": 1.5 / i**0.1, "learning_rate": 2e-4 * (1 - i / count), "epoch": epoch}
        logged.append({"loss": round(3 / i**0.2, 4), **rest, "step": step})
        if i % 20 == 0:
            rates = {"eval_runtime": 12.34, "eval_samples_per_second": 33.1, "eval_steps_per_second": 4.14}
            logged.append({"eval_loss": 3.1 / i**0.2, **rates, "epoch": epoch, "step": step})
    return logged


def event_files(folder: Path, points: int) -> dict[str, Any]:
    """Compare with TensorBoard's EventAccumulator and with tbparse."""
    steps = range(points // len(TAGS))
    path = event_file(
        folder / "events.out.tfevents.1.h",
        (event(step, {tag: 1.0 / (step + 1)}, time=1.7e9 + step) for step in steps for tag in TAGS),
    )
    found = tensorboard.read(path)
    assert sum(map(len, found.curves.values())) == len(steps) * len(TAGS) and not found.damage
    result: dict[str, Any] = {"points": points, "points_per_s": round(points / best_s(lambda: tensorboard.read(path)))}
    with contextlib.suppress(ImportError):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        def theirs() -> None:
            EventAccumulator(str(path), size_guidance={"scalars": 0}).Reload()

        result["times_event_accumulator"] = round(result["points_per_s"] / (points / best_s(theirs, 1)), 1)
    with contextlib.suppress(ImportError):
        from tbparse import SummaryReader

        result["times_tbparse"] = round(
            result["points_per_s"] / (points / best_s(lambda: SummaryReader(str(path)).scalars, 1)), 1
        )
    return result


def states_and_text(folder: Path, count: int) -> dict[str, Any]:
    """Compare the bytes a second of states and captured terminals with a bare parse of a state by orjson."""
    logged = entries(count)
    state = folder / "trainer_state.json"
    plain = {"epoch": 1.0, "global_step": 10 * count, "log_history": logged, "max_steps": 10 * count}
    state.write_text(json.dumps(plain, indent=2, sort_keys=True))
    with_nan = folder / "nan.json"
    with_nan.write_text(state.read_text().replace('"grad_norm": 1.', '"grad_norm": NaN, "g": 1.', count // 10))
    shown = [{name: value for name, value in entry.items() if name != "step"} for entry in logged]
    bar = "\r  7%|███████▋            | {}/999999 [00:10<00:10,  3.49s/it]"
    texts = {
        "console_4": "".join(f"{entry}\n" for entry in shown),
        "console_5": "".join(str({name: f"{value:.4g}" for name, value in entry.items()}) + "\n" for entry in shown),
        "console_bars": "".join(bar.format(i) * 3 + f"\r{' ' * 60}\r{entry}\n" for i, entry in enumerate(shown)),
        "console_lines": "".join(f"step {i}: train loss {3 / i:.4f}, val loss {4 / i:.4f}\n" for i in range(1, count)),
    }
    parsed = state.stat().st_size / best_s(lambda: orjson.loads(state.read_bytes()))
    result: dict[str, Any] = {"orjson_MB_per_s": round(parsed / 1e6)}
    for name, path in (("trainer_state", state), ("trainer_state_nan", with_nan)):
        result[name] = speed(path, trainer_state.read, state)
    for name, text in texts.items():
        path = folder / f"{name}.txt"
        path.write_text(text)
        result[name] = speed(path, console.read, state)
    return result


def thousand_runs(folder: Path, runs: int) -> dict[str, Any]:
    """List and judge a folder of small runs by `sightline read`, the first time and again with the cache."""
    for i in range(runs):
        logged = [{**entry, "loss": entry.get("loss", 0.0) + i / 1e4} for entry in entries(150)]
        for step in (500, 1000, 1500):
            part = [entry for entry in logged if entry["step"] <= step]
            state = folder / "runs" / f"run-{i:04d}" / f"checkpoint-{step}" / "trainer_state.json"
            state.parent.mkdir(parents=True)
            state.write_text(json.dumps({"global_step": step, "log_history": part, "max_steps": 1500}, indent=2))
            os.utime(state, (1.7e9, 1.7e9 + step))
            for name in ("model.safetensors", "optimizer.pt", "config.json", "rng_state.pth"):
                state.with_name(name).write_bytes(b"{}")

    command = [sys.executable, "-m", "sightline", "read", str(folder / "runs"), "--json"]
    environment = {**os.environ, "SIGHTLINE_CACHE": str(folder / "cache")}
    result: dict[str, Any] = {"runs": runs}
    for name in ("cold", "warm"):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        shown = subprocess.run(command, env=environment, capture_output=True, check=False).stdout
        assert len(orjson.loads(shown)["runs"]) == runs
        result[f"{name}_s"] = round(time.perf_counter() - began, 2)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        result[f"{name}_cpu_s"] = round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 2)
    return result


def one_small_log(folder: Path) -> dict[str, Any]:
    """Time `sightline read` of one small log, the whole process."""
    path = folder / "small" / "trainer_state.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"global_step": 1500, "log_history": entries(150), "max_steps": 1500}, indent=2))
    script = (
        "import resource, subprocess, sys, time\n"
        "began = time.perf_counter()\n"
        "subprocess.run([sys.executable, '-m', 'sightline', 'read', sys.argv[1]], stdout=subprocess.DEVNULL)\n"
        "wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(wall, used.ru_utime + used.ru_stime, used.ru_maxrss >> 10)\n"
    )
    best = min(
        tuple(map(float, subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True).stdout.split()))
        for _ in range(5)
    )
    return {"seconds": round(best[0], 2), "cpu_s": round(best[1], 2), "memory_MB": int(best[2])}


def growing(folder: Path) -> dict[str, Any]:
    """Time a look at a long log after one more line."""
    path = folder / "growing.log"
    path.write_text("".join(f"step {i}: train loss {3 / i:.4f}, val loss {4 / i:.4f}\n" for i in range(1, 100_000)))
    follower = Follower(path)
    follower.poll()
    waits = []
    for i in range(100_000, 100_010):
        with path.open("a") as file:
            file.write(f"step {i}: train loss 0.1, val loss 0.2\n")
        began = time.perf_counter()
        assert follower.poll()
        waits.append(time.perf_counter() - began)
    return {"points": 200_000, "poll_ms": round(1000 * min(waits), 1)}


LARGE = """
import resource, sys
from sightline.sources import console
from pathlib import Path
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run = console.read(Path(sys.argv[1]))
curves = sum(c.steps.nbytes + c.values.nbytes for c in run.curves.values())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, curves >> 20, len(run.curves["loss"]))
"""


def large(folder: Path, size: int = 1 << 30) -> dict[str, Any]:
    """Read a captured terminal of a gigabyte in a process of its own: a bar drawn ten times for each loss."""
    path = folder / "large.log"
    bar = "\r  7%|███▋     | {}/99999999 [00:10<00:10,  3.49s/it]"
    written = 0
    with path.open("wb") as file:
        for begin in range(1, 1 << 40, 1000):
            lines = (
                bar.format(i) * 10
                + f"\r{' ' * 60}\r{{'loss': {3 / i:.4f}, 'grad_norm': 1.5, 'epoch': {i / 1e5:.2f}}}\n"
                for i in range(begin, begin + 1000)
            )
            written += file.write("".join(lines).encode())
            if written > size:
                break
    began = time.perf_counter()
    command = [sys.executable, "-c", LARGE, str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    path.unlink()
    return {
        "MB": written >> 20,
        "seconds": round(time.perf_counter() - began, 1),
        "losses": int(shown[2]),
        "memory_MB": int(shown[0]),
        "curves_MB": int(shown[1]),
    }


def main() -> None:
    """Measure and print, a line a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=120_000)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--large", action="store_true", help="read a captured terminal of 1 GB too")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sightline-bench-"))
    try:
        results = {
            "event_files": event_files(folder, options.points),
            "states_and_text": states_and_text(folder, 30_000),
            "one_small_log": one_small_log(folder),
            "thousand_runs": thousand_runs(folder, options.runs),
            "growing": growing(folder),
        }
        if options.large:
            results["large"] = large(folder)
        results["memory_MB"] = {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10}
        for name, numbers in results.items():
            print(f"{name:16}", "  ".join(f"{key} {value}" for key, value in numbers.items()), flush=True)
        if options.json:
            options.json.write_text(json.dumps(results, indent=1) + "\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
