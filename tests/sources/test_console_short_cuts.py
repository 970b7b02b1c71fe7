"""What is taken together out of a captured terminal is what its lines say one by one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from sightline.sources.console import numbers as numbers_module
from sightline.sources.console import printed_lines as printed_lines_module
from sightline.sources.console.numbers import NUMBER, numbers_of, to_float
from sightline.sources.console.parser import Parser
from sightline.sources.console.printed_dicts import PrintedDicts
from tests.sources.test_console import DISORDERS, PRINTED, trainer_text

Told = list[tuple[dict[str, tuple[list[int], list[str]]], int | None, str, tuple[str, ...]]]


def told(content: bytes, size: int = 1 << 20) -> Told:
    """Return the runs of a text that comes in pieces; values as texts, so that NaN equals NaN."""
    parser = Parser(Path("x"))
    for begin in range(0, len(content), size):
        parser.feed(content[begin : begin + size])
    parser.end()
    return [
        (
            {
                name: (curve.steps.tolist(), list(map(repr, curve.values.tolist())))
                for name, curve in run.curves.items()
            },
            run.max_steps,
            run.status.value,
            run.damage,
        )
        for run in parser.runs()
    ]


def without_short_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every line looked at by itself."""
    monkeypatch.setattr(printed_lines_module, "_MANY", 10**9)
    monkeypatch.setattr(numbers_module._Blanks, "of", lambda *_: None)
    monkeypatch.setattr(Parser, "_take_scattered", lambda *_: False)
    monkeypatch.setattr(PrintedDicts, "take_block", lambda *_: False)


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("between", ["", "7", "loading\n", "Epoch 3:\n", "val loss 2.0\n", "\r5\n"])
def test_lines_read_the_same_together_and_one_by_one(end: str, between: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches of lines of one shape are a short cut and nothing else."""
    steps = [
        f"step {i}: train loss {3 / i:.4f}, lr {i / 1e9:.{2 + i % 3}g}{end}{between if i % 20 == 7 else ''}"
        for i in range(1, 90)
    ]
    content = "".join(steps).encode()
    together = told(content)
    without_short_cuts(monkeypatch)
    assert told(content) == together and sum(len(run["loss"][0]) for run, *_ in together) > 80


@pytest.mark.parametrize("strings", [False, True], ids=["4.x", "5.x"])
@pytest.mark.parametrize("bars", [False, True], ids=["plain", "bars"])
@pytest.mark.parametrize("disorder", ["none", *DISORDERS])
def test_dictionaries_read_the_same_together_and_one_by_one(
    disorder: str, bars: bool, strings: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are runs of dictionaries with nothing but bars and other programs' output between them."""
    text = trainer_text(400, strings=strings, bars=bars)
    content = (text if disorder == "none" else DISORDERS[disorder](text)).encode()
    together = told(content)
    assert sum(len(run["loss"][0]) for run, *_ in together) >= 40
    without_short_cuts(monkeypatch)
    assert told(content) == together


BETWEEN = {
    "nothing of note": "loading shard 7\nINFO: done\n",
    "banners": "***** Running Evaluation *****\n  Num examples = 99\n",
    "losses in words": "step 7: train loss 2.5\n",
    "an epoch": "Epoch 3 begins\n",
    "dictionaries without a loss": "{'a': 1}\nconfig {'b': 'x', 'c': [1]}\n",
    "evaluations by name": "Eval results: {'loss': 2.5, 'epoch': 0.3}\n",
    "results": "TrainOutput(global_step=170, metrics={'loss': 2.0})\n",
    "broken ones": "{'loss': 1.\n",
    "two in a line": "{'loss': 2.5, 'epoch': 0.3} {'loss': 2.4, 'epoch': 0.3}\n",
    "nested ones": "{'loss': 2.5, 'more': {'b': 1.5}, 'epoch': 0.3}\n",
    "words for numbers": "{'loss': nan, 'grad_norm': inf, 'flag': None, 'epoch': 0.3}\n",
    "JSON": 'log {"loss": 2.25, "step": 7}\nlog {"loss": 2.0, "step": 9}\n',
}


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("bars", [False, True], ids=["plain", "bars"])
def test_what_stands_between_reads_the_same(between: str, bars: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever other lines stand between some of the dictionaries."""
    lines = iter(range(10**6))
    text = re.sub(
        r"(?m)\}$",
        lambda _: "}\n" + (BETWEEN[between].rstrip() if next(lines) % 7 == 3 else ""),
        trainer_text(bars=bars),
    )
    together = told(text.encode())
    without_short_cuts(monkeypatch)
    assert told(text.encode()) == together and together


def test_other_programs_lines_read_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what other programs print, a whole log each."""
    logs = [(text * 3).encode() for text, *_ in PRINTED.values()]
    together = [told(log) for log in logs]
    without_short_cuts(monkeypatch)
    assert [told(log) for log in logs] == together and all(together)


@pytest.mark.parametrize(
    "line",
    [
        "step {a:.0f}: train loss {b:.4f}, val loss {c:.4f}",
        "[2026-01-0{d} 10:0{d}:07,123] step {a:06.0f} | loss {b:.3f} | lr {c:.2e}",
        "iter {a:.0f} loss {b:.4f} lr {c:.2e} grad {b:.2e}",
        "loss: -{b:.3f} at {a:.0f}",
        "pre-train loss {b:.3e} (e-mail 7)",
        "{a:.0f} | {b:.2f}% | {c:+.2f}",
        "loss {b:.3f}... step 1,{a:03.0f}",
        "x{d}y loss {b:.3f} v1.2.{d}",
    ],
)
def test_numbers_of_many_lines_are_those_of_each(line: str) -> None:
    """Whatever stands between the numbers, and however they are written."""
    rng = np.random.default_rng(1)
    lines = [line.format(a=i, b=3 / i, c=abs(rng.normal()) * 1e-3 + 1e-6, d=i % 9 + 1).encode() for i in range(1, 60)]
    found = [list(map(to_float, NUMBER.findall(each))) for each in lines]
    (count,) = {len(each) for each in found}
    keep, values = numbers_of(b"\n".join(lines), len(lines), range(count), count)
    assert keep is None
    assert np.array(values).T.tolist() == found


def test_a_number_more_in_a_line_shifts_no_other() -> None:
    """A line into which another process wrote is left out."""
    lines = [b"step %d loss 1.5 lr 2" % i for i in range(9)]
    lines[4] = b"step 4 7 loss 1.5 lr 2"
    keep, (steps,) = numbers_of(b"\n".join(lines), len(lines), [0], 3)
    assert keep is not None and keep.tolist() == [i != 4 for i in range(9)]
    assert steps.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize("size", [300, 4000, 1 << 20])
def test_every_dictionary_keeps_its_bar(size: int) -> None:
    """However many are parsed together and wherever a piece ends, no bar is lost: it is what tells the step."""
    bar = "\r 7%|█   | {}/99999 [00:10<00:10,  3.49s/it]"
    text = "".join(f"{{'loss': {3 / i:.4f}, 'epoch': 0.0}}\n{bar.format(i)}" for i in range(1, 9001))
    ((curves, *_),) = told(text[: 40 * size].encode() if size < 4000 else text.encode(), size)
    steps, _ = curves["loss"]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > 100
