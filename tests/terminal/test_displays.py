"""The three displays of a running fine-tune, the live one in a real pseudo-terminal."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from sightline.runs import Severity
from sightline.terminal.display import choose_display
from sightline.terminal.json_display import JsonDisplay
from sightline.terminal.live import RichDisplay
from sightline.terminal.pace import Pace
from sightline.terminal.plain_display import PlainDisplay
from tests.terminal import verdicts
from tests.terminal.screen import Screen
from tests.terminal.simulated import STEPS, fine_tune

ROOT = Path(__file__).parents[2]


class Output(io.StringIO):
    """Standard output in memory, a terminal if asked."""

    def __init__(self, *, tty: bool = False, encoding: str = "utf-8") -> None:
        super().__init__()
        self._tty, self._encoding = tty, encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._tty


class Broken(Output):
    """A disk that is full, or a reader that has gone."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def in_terminal(words: list[str], *, columns: int = 100, rows: int = 40, resize_to=None, **environment: str):
    """Run the simulated fine-tune in a pseudo-terminal; return its screen and exit code."""
    parent, child = pty.openpty()
    _set_size(child, columns, rows)
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")}
    env |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.terminal.simulated", *words],
        stdin=child, stdout=child, stderr=child, cwd=ROOT, env=env, start_new_session=True,
    )  # fmt: skip
    os.close(child)
    raw, resized, deadline = b"", False, time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([parent], [], [], 0.2)[0]:
            try:
                chunk = os.read(parent, 65536)
            except OSError:  # the other end has closed
                break
            raw += chunk
            if resize_to and not resized and raw.count(b"\x1b[?2026h") > 3:
                _set_size(parent, *resize_to)
                resized = True
        elif process.poll() is not None:
            break
    code = process.wait(timeout=30)
    os.close(parent)
    screen = Screen(*(resize_to or (columns, rows)))
    screen.feed(raw.decode("utf-8").replace("\r\n", "\n"))
    return screen, raw.decode("utf-8"), code


def _set_size(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def test_live_page_gives_way_to_the_verdict():
    """At the end nothing of the live page is left: what was printed, and the verdict below it."""
    screen, raw, code = in_terminal(["--print", "--slow", "0.003"])
    text = screen.text()
    assert code == 0
    assert screen.modes == set() and screen.unknown == []
    assert "?1049h" not in raw and "?25l" not in raw
    assert "best so far" in raw and "best so far" not in text and "█" not in text
    assert text.index("WARNING: 12 rows are cut at \\x1b[31m512 tokens") < text.index("Sightline: outputs/a")
    lines = text.splitlines()
    for step in (100, 200, 300):
        assert f"printed at {step}" in lines and f"complaint at {step}" in lines
    assert text.count("OVERFITTING") == 1 and lines[-1] == "→ best weights: outputs/a/best"


def test_live_page_survives_a_resize():
    """After the terminal became smaller every frame fits and the verdict stands clean at the end."""
    screen, _, code = in_terminal(["--slow", "0.004"], resize_to=(60, 20))
    lines = screen.text().splitlines()
    assert code == 0 and lines[-1] == "→ best weights: outputs/a/best"
    after = lines[max(i for i, line in enumerate(lines) if line == "outputs/a") :]
    assert sum("outputs/a" in line for line in after) == 2 and max(map(len, after)) < 60


@pytest.mark.parametrize(
    ("word", "said"), [("--fail", "RuntimeError: the GPU is on fire"), ("--interrupt", "Interrupt")]
)
def test_an_exception_or_ctrl_c_leaves_the_terminal_usable(word, said):
    """The traceback can be read, the last page stands, no mode is left set."""
    screen, raw, code = in_terminal([word])
    assert code != 0 and said in screen.text()
    assert screen.modes == set() and raw.count("?2026h") == raw.count("?2026l")
    assert screen.column == 0


def test_no_color_means_no_colour():
    """NO_COLOR leaves cursor movements and no colour."""
    _, raw, code = in_terminal([], NO_COLOR="1")
    assert code == 0 and "\x1b[38" not in raw and "\x1b[1m" not in raw


def test_dumb_terminal_gets_plain_lines():
    """A terminal that cannot move its cursor gets lines."""
    _, raw, code = in_terminal([], TERM="dumb")
    assert code == 0 and "\x1b" not in raw and "validation loss" in raw


def test_live_page_is_painted_seldom(monkeypatch):
    """At most four paints a second, and painting takes no more than about a hundredth of the time."""
    monkeypatch.setenv("COLUMNS", "100")
    clock, out = Clock(), Output(tty=True)
    display = RichDisplay(out, clock=clock)
    display.begin(run_name="a", max_steps=10_000, first_step=0, details=[])
    try:
        for step in range(1, 10_001):
            clock.now += 0.001
            display.stepped(step)
    finally:
        display.close()
    assert 2 <= out.getvalue().count("\x1b[?2026h") <= 41


def test_a_step_costs_next_to_nothing():
    """Far under 20 microseconds a step."""
    display = RichDisplay(Output(tty=True), clock=lambda: 0.0)
    display.begin(run_name="a", max_steps=10, first_step=0, details=[])
    began = time.perf_counter()
    for _ in range(10_000):
        display.stepped(1)
    cost = (time.perf_counter() - began) / 10_000
    display.close()
    assert cost < 20e-6


@pytest.mark.parametrize("make", [RichDisplay, PlainDisplay, JsonDisplay])
def test_a_display_never_raises(make, capsys):
    """A broken output is told once on stderr and the training goes on."""
    display = make(Broken(tty=True))
    fine_tune(display)
    display.close()
    assert sys.stdout is sys.__stdout__ or not hasattr(sys.stdout, "_region")


def test_a_display_gives_up_in_one_line(monkeypatch):
    """The line names the reason."""
    errors = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", errors)
    fine_tune(PlainDisplay(Broken()))
    assert errors.getvalue().count("\n") == 1 and "No space left" in errors.getvalue()


def test_plain_lines():
    """One line an evaluation, a line for a log every ten seconds, then the page."""
    clock, out = Clock(), Output()
    display = PlainDisplay(out, clock=clock, seconds_between_logs=10)
    original = display.stepped

    def stepped(step: int) -> None:
        clock.now += 1.0
        original(step)

    display.stepped = stepped  # type: ignore[method-assign]
    fine_tune(display)
    lines = out.getvalue().splitlines()
    evaluations = [line for line in lines if "validation loss" in line and line.startswith("step ")]
    logs = [line for line in lines if "training loss" in line and line.startswith("step ")]
    assert len(evaluations) == 20 and len(logs) == 30
    assert (
        evaluations[0]
        == "step 15 of 300 (5 %) | validation loss 2.531 (perplexity 12.57) | the best so far | too early to say"
    )
    assert (
        logs[1] == "step 15 of 300 (5 %) | training loss 1.958 | learning rate 9.5e-05 | 900 tokens/s | 4 min 45 s left"
    )
    assert "\x1b" not in out.getvalue() and lines[-1] == "→ best weights: outputs/a/best"


def test_plain_lines_count_what_the_log_counts():
    """A followed log of epochs has no steps."""
    out = io.StringIO()
    display = PlainDisplay(out)
    verdict = verdicts.no_train_loss()
    display.begin(run_name="a", max_steps=0, first_step=0, details=[])
    display.logged(verdict.run, 4, {"val_loss": 0.38})
    display.evaluated(verdict)
    assert "epoch 4 | validation loss" in out.getvalue() and "step" not in out.getvalue()


def test_plain_lines_in_ascii():
    """An output that only carries ASCII gets ASCII."""
    out = Output(encoding="ascii")
    fine_tune(PlainDisplay(out))
    assert out.getvalue().isascii()


def test_json_events_are_strict_and_documented():
    """Every line is one strict JSON object of a kind that docs/cli.md describes."""
    out = Output()
    fine_tune(JsonDisplay(out, clock=lambda: 1234.5678))
    events = [json.loads(line, parse_constant=_refuse) for line in out.getvalue().splitlines()]
    assert [e["event"] for e in events[:2]] == ["notice", "begin"] and events[-1]["event"] == "end"
    kinds = {e["event"] for e in events}
    assert kinds == {"notice", "begin", "log", "evaluation", "end"}
    assert all(e["sightline"] == 1 and e["time"] == 1234.568 for e in events)
    assert sum(e["event"] == "evaluation" for e in events) == 20 and sum(e["event"] == "log" for e in events) == 60
    assert events[-1]["verdict"]["phase"] == "overfitting" and events[-1]["lines"] == ["best weights: outputs/a/best"]
    documented = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    for kind in kinds:
        assert f'`"{kind}"`' in documented
        for key in next(e for e in events if e["event"] == kind):
            assert f"`{key}`" in documented


def test_the_display_follows_the_output():
    """JSON when asked, live on a terminal, plain otherwise."""
    assert isinstance(choose_display(Output(), json=True), JsonDisplay)
    assert isinstance(choose_display(Output(tty=True), json=True), JsonDisplay)
    assert isinstance(choose_display(Output()), PlainDisplay)


def test_time_left_and_rate():
    """From the steps done since the start or the resume, and from what the log says of tokens."""
    pace = Pace(max_steps=200, first_step=100, now=0.0)
    assert pace.left_s(5.0) is None
    pace.step = 150
    assert pace.left_s(10.0) == 10.0 and pace.share() == 0.75
    pace.logged({"num_tokens": 1000.0}, 10.0)
    assert pace.tokens_per_second is None
    pace.logged({"num_tokens": 3000.0}, 14.0)
    assert pace.tokens_per_second == 500.0
    pace.logged({"tokens_per_second": 7.0}, 15.0)
    assert pace.tokens_per_second == 7.0


def test_notices_keep_their_severity():
    """A word says how much it matters, for those who see no colour."""
    out = Output()
    PlainDisplay(out).notice("the disk is nearly full", Severity.CRITICAL)
    assert out.getvalue() == "CRITICAL: the disk is nearly full\n"


def _refuse(word):
    raise AssertionError(f"bare {word} in the JSON")


assert STEPS == 300  # what the counts above are worked out from
