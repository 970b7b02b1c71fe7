"""Recording: what one event of 8 metrics costs in the training thread, and what kill -9 loses of it.

Sightline's recorder against a bare JSON line appended, TensorBoard's SummaryWriter with a flush after each event,
Weights & Biases offline and trackio, all in one run; a peer that is not installed is named and left out. Each
measurement is a process of its own, the contestants take turns, medians over the rounds are compared. In the second
part a process records 200 events a second and writes the number of each to a pipe once its log call has returned; it
is killed at a random moment, and the events found on disk are compared with those acknowledged.

    python benchmarks/recorder.py [--rounds 3] [--events 2000] [--kills 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Log = Callable[[int, dict[str, float]], None]
METRICS = {
    "loss": 1.2345678,
    "grad_norm": 0.5123456,
    "learning_rate": 1.9e-05,
    "epoch": 0.1234567,
    "entropy": 1.2345671,
    "mean_token_accuracy": 0.7123456,
    "num_tokens": 123456.0,
    "tokens_per_second": 4567.8912,
}
WARM_UP = 100
STEP_S = 0.020
"""The training step that the cost is set against, seconds: a small model on one GPU."""


def sightline(folder: Path) -> Log:
    """Sightline's recorder."""
    from sightline.journal import Recorder

    return Recorder.open(folder).log


def sightline_found(folder: Path) -> set[int]:
    """Return the steps in a journal."""
    from sightline.journal import read

    curve = read(folder).curves.get("loss")
    return set() if curve is None else set(curve.steps.tolist())


def json_line(folder: Path) -> Log:
    """Append a bare JSON line with one write, the floor for anything that loses nothing."""
    import orjson

    fd = os.open(folder / "log.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def log(step: int, metrics: dict[str, float]) -> None:
        os.write(fd, orjson.dumps({"step": step, **metrics}) + b"\n")

    return log


def json_line_found(folder: Path) -> set[int]:
    """Return the steps in a file of JSON lines."""
    return {json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines() if line.endswith("}")}


def tensorboard(folder: Path) -> Log:
    """TensorBoard's SummaryWriter, one scalar a metric, flushed after each event."""
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))

    def log(step: int, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log


def tensorboard_found(folder: Path) -> set[int]:
    """Return the steps whose last metric is in the event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    last = list(METRICS)[-1]
    return {event.step for event in events.Scalars(last)} if last in events.Tags()["scalars"] else set()


def wandb(folder: Path) -> Log:
    """Weights & Biases without a network."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_DIR": str(folder)}
    import wandb as peer

    run = peer.init(project="bench", dir=str(folder), settings=peer.Settings(x_disable_stats=True))
    return lambda step, metrics: run.log(metrics, step=step)


def wandb_found(folder: Path) -> set[int]:
    """Return the steps in its transaction log."""
    from sightline.sources import wandb as reader

    files = sorted(folder.rglob("*.wandb"))
    curve = reader.read(files[0]).curves.get("loss") if files else None
    return set() if curve is None else set(curve.steps.tolist())


def trackio(folder: Path) -> Log:
    """Trackio with its local database."""
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio as peer

    peer.init(project="bench", embed=False, auto_log_gpu=False, auto_log_cpu=False)
    return lambda step, metrics: peer.log(metrics, step=step)


def trackio_found(folder: Path) -> set[int]:
    """Return the steps in its database."""
    import sqlite3

    found: set[int] = set()
    for path in folder.rglob("*.db"):
        database = sqlite3.connect(path)
        if database.execute("select 1 from sqlite_master where name = 'metrics'").fetchone():
            found |= {step for (step,) in database.execute("select step from metrics")}
        database.close()
    return found


CONTESTANTS: dict[str, tuple[Callable[[Path], Log], Callable[[Path], set[int]], str, str]] = {
    "sightline": (sightline, sightline_found, "sightline", "Sightline recorder"),
    "json": (json_line, json_line_found, "orjson", "bare JSON line"),
    "trackio": (trackio, trackio_found, "trackio", "trackio"),
    "tensorboard": (tensorboard, tensorboard_found, "torch.utils.tensorboard", "TensorBoard SummaryWriter, flush each"),
    "wandb": (wandb, wandb_found, "wandb", "wandb offline"),
}
"""Name -> how it logs, what it finds, the package it needs, what people call it."""


def missing(name: str) -> str | None:
    """Return the package that a contestant lacks, None if it can run."""
    packages = [CONTESTANTS[name][2], *(["tensorboard", "torch"] if name == "tensorboard" else [])]
    for package in packages:
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            return package.partition(".")[0]
    return None


def time_events(name: str, folder: Path, events: int) -> None:
    """Log events and print the median and the 99th percentile of their cost in microseconds."""
    log = CONTESTANTS[name][0](folder)
    costs = []
    for step in range(WARM_UP + events):
        metrics = {key: value + step * 1e-6 for key, value in METRICS.items()}
        start = time.perf_counter_ns()
        log(step, metrics)
        costs.append((time.perf_counter_ns() - start) / 1000)
        if name not in ("sightline", "json"):
            time.sleep(0.0002)  # the queues of the others are emptied by threads, which need a turn
    costs = sorted(costs[WARM_UP:])
    tell({"median_us": costs[len(costs) // 2], "p99_us": costs[len(costs) * 99 // 100]})


def log_until_killed(name: str, folder: Path) -> None:
    """Log 200 events a second and acknowledge each, for as long as the process lives."""
    log = CONTESTANTS[name][0](folder)
    for step in range(1, 10**6):
        log(step, METRICS)
        os.write(int(os.environ["BENCH_PIPE"]), b"%d\n" % step)
        time.sleep(0.005)


def tell(result: dict[str, Any]) -> None:
    """Hand a result to the parent, whatever else was printed."""
    os.write(int(os.environ["BENCH_PIPE"]), json.dumps(result).encode() + b"\n")


def child(mode: str, name: str, folder: Path, events: int = 0) -> tuple[subprocess.Popen[bytes], int]:
    """Start this script for one measurement; return the process and the pipe it writes to."""
    receive, send = os.pipe()
    process = subprocess.Popen(
        [sys.executable, __file__, "--child", mode, name, str(folder), "--events", str(events)],
        env=os.environ | {"BENCH_PIPE": str(send), "OMP_NUM_THREADS": "1"},
        pass_fds=[send],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(send)
    return process, receive


def read_lines(receive: int, until: float | None = None) -> list[bytes]:
    """Read a pipe to its end, or for the first line and then some seconds."""
    os.set_blocking(receive, False)
    content, deadline = b"", None
    while True:
        try:
            chunk = os.read(receive, 65536)
            if not chunk:
                break
            content += chunk
        except BlockingIOError:
            time.sleep(0.002)
        if until is not None and deadline is None and b"\n" in content:
            deadline = time.monotonic() + until
        if deadline is not None and time.monotonic() > deadline:
            break
    return content.split(b"\n")[:-1]


def cost(name: str, events: int) -> dict[str, float] | None:
    """Measure one contestant once."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process, receive = child("time", name, Path(folder), events)
        lines = read_lines(receive)
        process.wait()
        os.close(receive)
        end_session(process.pid)
    return json.loads(lines[0]) if lines else None


def lost_at_kill(name: str, seed: int) -> tuple[int, int]:
    """Kill one contestant at a random moment; return events acknowledged and, of these, lost."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process, receive = child("kill", name, Path(folder))
        lines = read_lines(receive, until=random.Random(seed).uniform(0.5, 2.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        lines += read_lines(receive)
        os.close(receive)
        time.sleep(1.0)  # a helper process that outlives it may still write
        end_session(process.pid)
        acknowledged = {int(line) for line in lines if line.isdigit()}
        found = CONTESTANTS[name][1](Path(folder))
    return len(acknowledged), len(acknowledged - found)


def end_session(pid: int) -> None:
    """End what a child has left running in its own session."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def measure(rounds: int, events: int, kills: int) -> dict[str, dict[str, Any]]:
    """Let all contestants take turns."""
    results: dict[str, dict[str, Any]] = {}
    for name, (_, _, _, title) in CONTESTANTS.items():
        results[name] = {"title": title, "missing": missing(name), "median_us": [], "p99_us": []}
        results[name] |= {"acknowledged": 0, "lost": []}
    present = [name for name in CONTESTANTS if results[name]["missing"] is None]
    for _ in range(rounds):
        for name in present:
            got = cost(name, events)
            for key in ("median_us", "p99_us"):
                results[name][key] += [] if got is None else [got[key]]
    for seed in range(kills):
        for name in present:
            acknowledged, lost = lost_at_kill(name, seed)
            results[name]["acknowledged"] += acknowledged
            results[name]["lost"].append(lost)
    for name in present:
        for key in ("median_us", "p99_us"):
            values = results[name][key]
            results[name][key] = statistics.median(values) if values else None
    return results


def table(results: dict[str, dict[str, Any]]) -> str:
    """Return the results as a table for people."""
    own = results["sightline"]["median_us"]
    lines = [
        "one event of 8 metrics in the training thread; events lost of those acknowledged at kill -9, 200 a second",
        f"{'':38}{'median':>10}{'p99':>10}{'Sightline is':>22}{'acknowledged':>14}{'lost':>7}   a kill",
    ]
    for name, result in results.items():
        if result["missing"]:
            lines.append(f"{result['title']:38}not installed (pip install {result['missing']})")
            continue
        if result["median_us"] is None or not own:
            lines.append(f"{result['title']:38}could not be run")
            continue
        ratio = result["median_us"] / own
        against = "" if name == "sightline" else f"1/{ratio:.1f} of it" if ratio >= 1 else f"{1 / ratio:.1f} times it"
        lost = result["lost"]
        lines.append(
            f"{result['title']:38}{result['median_us']:7.1f} us{result['p99_us']:7.1f} us{against:>22}"
            f"{result['acknowledged']:14,}{sum(lost):7,}   {', '.join(map(str, lost))}"
        )
    if own:
        lines.append(f"Sightline's share of a training step of {STEP_S * 1000:.0f} ms: {own / STEP_S / 1e4:.3f} %")
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark, or one measurement as a child of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--child", nargs=3, metavar=("MODE", "NAME", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        mode, name, folder = arguments.child
        if mode == "time":
            time_events(name, Path(folder), arguments.events)
        else:
            log_until_killed(name, Path(folder))
        return
    results = measure(arguments.rounds, arguments.events, arguments.kills)
    print(table(results))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"benchmark": "recorder", "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
