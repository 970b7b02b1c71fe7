"""Exact evaluation against the Trainer's and TRL's own, and against the floor of what exactness needs.

512 rows (128 at the largest vocabulary) of log-normal length from 8 to 512 tokens, the first half of each masked; a
Llama of 6 layers x 256 with vocabularies of 2,048, 49,152 and 151,936 entries; float32 on the CPU. Per vocabulary, in
one process, the sides take turns, Sightline before each of the others, and the median of a side's passes counts; wall
time and CPU time are shown, since other work on the machine lengthens mostly the first. Peak memory is the median of
three processes per side, of a first pass over a quarter of the rows. The Trainer's batch sizes run from 1 to 32 on an
eighth of the rows; the best is then measured on all. "Hooked" is a Trainer's own pass with the exact sums taken from it.

The floor is the number of multiplications that an exact loss needs (body at every token up to the last label, causal
attention, head at the labelled positions), at the rate of the quickest float32 product measured in the same process;
and at the rate of ``torch.mm``, which the Trainer uses. The rate is the median of products made for two seconds, before
the passes or after them, whichever is higher. A second floor adds the exponentials that exactness needs as well, one
for every logit of a labelled position and every score of causal attention, at the rate of a tile in the cache. Beside
it stands how long it takes to read every weight once, and the bound: how many times as fast as each side a pass at the
floor would be.

On an accelerator (``--device cuda``) all sides run there, in ``--dtype``; peak memory is the device's, the floors are at the
device's rate, and wall time counts: CPU time says nothing there.

The whole takes an hour. In pieces: ``--peers`` names the sides, ``--batch-sizes`` those to choose the best from,
``--no-memory`` leaves memory out. ``--sigma`` and ``--masked`` change the rows,
``--hidden`` the model.

    python benchmarks/evaluation.py [--quick] [--threads N] [--rounds N] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _evaluation_set import (
    Row,
    collate,
    exact_loss,
    model_of,
    rows_of,
    sft_trainer_of,
    trainer_of,
)
from _floor import (
    clocked,
    exponential_rate,
    exponentials_of,
    operations_of,
    product_rates,
    seconds_to_read,
)

ROWS = {2_048: 512, 49_152: 512, 151_936: 128}
"""Rows by vocabulary; the Trainer takes an hour for 512 at the largest."""
PEERS = ("Trainer", "SFTTrainer", "hooked")
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
DEFAULT_BATCH = 8
TINY = 64  # vocabulary of the model that warms a process up
EVALS_PER_EPOCH = 15
MEMORY_PROCESSES = 3
TRAIN_ROWS_PER_EVAL_ROW = 9


def main() -> int:
    """Measure, print tables, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="96 rows, the middle vocabulary, one round")
    parser.add_argument("--rows", type=int, help="at every vocabulary")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--vocabularies", type=int, nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=BATCH_SIZES, metavar="N")
    parser.add_argument("--no-default-batch", action="store_true", help=f"leave batches of {DEFAULT_BATCH} out")
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--sigma", type=float, default=0.9, help="of the log-normal lengths")
    parser.add_argument("--masked", type=float, default=0.5, help="share of each row that bears no label")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model's 6 layers, a multiple of 64")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_child(json.loads(options.child))))
        return 0
    if options.quick:
        options.rows, options.rounds, options.vocabularies = 96, 1, (49_152,)
        options.peers = [peer for peer in options.peers if peer != "hooked"]
    results = []
    for vocabulary in options.vocabularies:
        case = {
            "vocabulary": vocabulary,
            "rows": options.rows or ROWS[vocabulary],
            "rounds": options.rounds,
            "peers": options.peers,
            "batch_sizes": options.batch_sizes,
            "default_batch": not options.no_default_batch,
            "sigma": options.sigma,
            "masked": options.masked,
            "hidden": options.hidden,
            "threads": options.threads,
            "device": options.device,
            "dtype": options.dtype,
        }
        timed = _in_child({**case, "measure": "time"})
        for name, side in timed["sides"].items():
            if not (name.endswith("hooked") or options.no_memory):
                memory_case = {**case, "measure": "memory", "side": name, "batch": side["batch"]}
                side["peaks_mib"] = [_in_child(memory_case)["peak_mib"] for _ in range(MEMORY_PROCESSES)]
                side["peak_mib"] = statistics.median(side["peaks_mib"])
        results.append(timed)
        _show(timed)
    if options.json:
        options.json.write_text(json.dumps({"threads": options.threads, "results": results}, indent=1))
    return 0


def _in_child(case: dict[str, Any]) -> dict[str, Any]:
    """Run one case in a process of its own."""
    threads = str(case["threads"])
    env = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, "-W", "ignore", __file__, "--child", json.dumps(case)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _child(case: dict[str, Any]) -> dict[str, Any]:
    import torch
    import transformers

    torch.set_num_threads(case["threads"])
    transformers.utils.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        return _time(case, folder) if case["measure"] == "time" else _memory(case, folder)


def _model(case: dict[str, Any], vocabulary: int) -> Any:
    import torch

    return model_of(vocabulary, hidden=case["hidden"]).to(case["device"], getattr(torch, case["dtype"]))


def _passes(name: str, model: Any, rows: list[Row], batch: int, folder: str) -> Callable[[], float]:
    """Return a function that makes one evaluation pass and returns its loss."""
    if name == "sightline":
        from sightline.evaluation import EvalSet, evaluate

        eval_set = EvalSet(rows)
        return lambda: evaluate(model, eval_set).loss
    from transformers import PrinterCallback

    trainer = (sft_trainer_of if name.startswith("SFTTrainer") else trainer_of)(model, rows, batch, folder)
    trainer.remove_callback(PrinterCallback)
    if not name.endswith("hooked"):
        return lambda: float(trainer.evaluate()["eval_loss"])
    return lambda: _hooked(trainer)


def _hooked(trainer: Any) -> float:
    """Make the Trainer's own pass and take the exact loss from it."""
    from transformers import TrainerCallback

    from sightline.evaluation import LossHook

    hook = LossHook()

    class Delegate(TrainerCallback):
        def on_prediction_step(self, *args: Any, **kwargs: Any) -> None:
            hook.batch_done()

    delegate = Delegate()
    hook.attach(trainer.model)
    trainer.add_callback(delegate)
    try:
        trainer.evaluate()
        found = hook.take(len(trainer.eval_dataset))
    finally:
        hook.detach()
        trainer.remove_callback(delegate)
    assert found is not None
    return found.loss


def _time(case: dict[str, Any], folder: str) -> dict[str, Any]:
    vocabulary, rows = case["vocabulary"], _rows(case)
    model = _model(case, vocabulary)
    rates_before = product_rates(model)
    sides: dict[str, dict[str, Any]] = {"sightline": {"batch": 0}}
    for kind in (peer for peer in case["peers"] if peer != "hooked"):
        best = _best_batch(kind, model, rows[: len(rows) // 8], case["batch_sizes"], folder)
        sides[f"{kind}, best batch ({best})"] = {"batch": best}
        if case["default_batch"]:
            sides[f"{kind}, batch {DEFAULT_BATCH}"] = {"batch": DEFAULT_BATCH}
        if "hooked" in case["peers"]:
            sides[f"{kind}, batch {DEFAULT_BATCH}, hooked"] = {"batch": DEFAULT_BATCH}
    passes = {name: _passes(name, model, rows, side["batch"], folder) for name, side in sides.items()}
    ours = passes.pop("sightline")
    first_s, first_cpu_s, _ = clocked(ours)
    taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in sides}
    for _ in range(case["rounds"]):
        taken["sightline"].append(clocked(ours))
        for name, make_pass in passes.items():
            taken[name].append(clocked(make_pass))
            taken["sightline"].append(clocked(ours))
    rates = {name: max(rate, rates_before[name]) for name, rate in product_rates(model).items()}
    for name, clocks in taken.items():
        wall_s, cpu_s, losses = zip(*clocks, strict=True)
        sides[name] |= {"wall_s": statistics.median(wall_s), "cpu_s": statistics.median(cpu_s), "loss": losses[-1]}
        sides[name]["walls_s"] = wall_s
    operations = operations_of(rows, model.config)
    exponentials = exponentials_of(rows, model.config)
    exponentials_per_s = exponential_rate(case["device"])
    return {
        **case,
        "device_name": _device_name(case["device"]),
        "sides": sides,
        "first_pass": {"wall_s": first_s, "cpu_s": first_cpu_s},
        "exact_loss": exact_loss(model, rows),
        "operations": operations,
        "product_flops_per_s": rates,
        "floor_s": {name: operations / rate for name, rate in rates.items()},
        "exponentials_per_s": exponentials_per_s,
        "floor_with_exponentials_s": operations / rates["quickest"] + exponentials / exponentials_per_s,
        "reading_s": seconds_to_read(model),
        "training": _share_of_a_run(model, rows, sides["sightline"]["wall_s"]),
    }


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def _rows(case: dict[str, Any]) -> list[Row]:
    return rows_of(case["vocabulary"], case["rows"], case["sigma"], case["masked"])


def _best_batch(kind: str, model: Any, rows: list[Row], sizes: list[int], folder: str) -> int:
    """Return the batch size at which a Trainer takes least CPU time."""
    if len(sizes) == 1:
        return sizes[0]
    took = {size: clocked(_passes(kind, model, rows, size, folder))[1] for size in sizes}
    return min(took, key=lambda size: took[size])


def _memory(case: dict[str, Any], folder: str) -> dict[str, Any]:
    """Return by how much a model's first pass raises the peak of a process that has model and rows in memory.

    What is loaded late (modules, thread pools) is loaded beforehand by a pass of another, tiny model: one of this model
    would leave room behind in which the next is done, and the peak would not show it.
    """
    rows = _rows(case)[: case["rows"] // 4]
    model = _model(case, case["vocabulary"])
    _passes(case["side"], _model(case, TINY), rows_of(TINY, 2), 1, folder)()
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # what the tiny model left to the allocator; glibc alone has it
    make_pass = _passes(case["side"], model, rows, case["batch"], folder)
    if case["device"] == "cuda":
        return {"peak_mib": _device_peak_mib(make_pass)}
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _status_mib("VmRSS")
    make_pass()
    return {"peak_mib": _status_mib("VmHWM") - before}


def _device_peak_mib(make_pass: Callable[[], float]) -> float:
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    make_pass()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def _status_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _share_of_a_run(model: Any, rows: list[Row], evaluation_s: float) -> dict[str, float]:
    """Return what share of an epoch's time 15 evaluations take, with nine times as many training rows."""
    import torch

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = [collate(rows[i : i + DEFAULT_BATCH]) for i in range(0, min(len(rows), 64), DEFAULT_BATCH)]
    steps_s = []
    for batch in batches:
        began = time.perf_counter()
        loss = model(**{name: value.to(model.device) for name, value in batch.items()}, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
        steps_s.append(time.perf_counter() - began)
    epoch_s = sum(steps_s) / len(steps_s) * len(rows) * TRAIN_ROWS_PER_EVAL_ROW / DEFAULT_BATCH
    spent_s = EVALS_PER_EPOCH * evaluation_s
    return {"epoch_s": epoch_s, "evaluations_s": spent_s, "share": spent_s / (epoch_s + spent_s)}


def _show(result: dict[str, Any]) -> None:
    ours = result["sides"]["sightline"]
    where = f"6 layers x {result['hidden']}, {result['device_name']}, {result['dtype']}, {result['threads']} threads"
    print(f"\nvocabulary {result['vocabulary']:,}, {result['rows']} rows, {where}")
    print(f"{'':28}{'wall s':>9}{'x ours':>7}{'CPU s':>9}{'x ours':>7}{'peak MiB*':>10}{'x ours':>7}{'error':>10}")
    for name, side in result["sides"].items():
        peak = f"{side['peak_mib']:10.0f}{side['peak_mib'] / ours['peak_mib']:7.1f}" if "peak_mib" in side else " " * 17
        print(
            f"{name:28}{side['wall_s']:9.2f}{side['wall_s'] / ours['wall_s']:7.1f}"
            f"{side['cpu_s']:9.2f}{side['cpu_s'] / ours['cpu_s']:7.1f}"
            f"{peak}"
            f"{side['loss'] / result['exact_loss'] - 1:+10.1e}"
        )
    if "peak_mib" in ours:
        print("* above a process that holds the model, of a first pass over a quarter of the rows")
    rates, threads = result["product_flops_per_s"], result["threads"]
    for name, floor_s in result["floor_s"].items():
        print(
            f"floor at {name}'s {rates[name] / 1e9:.0f} GFLOP/s: {floor_s:.2f} s; "
            f"ours is {ours['wall_s'] / floor_s:.2f} x (by CPU time {ours['cpu_s'] / threads / floor_s:.2f} x)"
        )
    floor_s = result["floor_with_exponentials_s"]
    print(
        f"the same with the exponentials, {result['exponentials_per_s'] / 1e9:.1f} G/s: {floor_s:.2f} s; "
        f"ours is {ours['wall_s'] / floor_s:.2f} x (by CPU time {ours['cpu_s'] / threads / floor_s:.2f} x)"
    )
    floor_s = result["floor_s"]["quickest"]
    bounds = (
        f"{side['wall_s'] / floor_s:.1f} x {name}, " for name, side in result["sides"].items() if side is not ours
    )
    print(f"a pass at the floor: {''.join(bounds)}reading every weight once {result['reading_s']:.3f} s")
    training = result["training"]
    print(
        f"first pass {result['first_pass']['wall_s']:.2f} s; {EVALS_PER_EPOCH} evaluations take "
        f"{100 * training['share']:.1f} % of an epoch of {TRAIN_ROWS_PER_EVAL_ROW} times as many rows"
    )


if __name__ == "__main__":
    sys.exit(main())
