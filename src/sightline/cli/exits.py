"""From errors to exit codes: the one place, so that nobody ever sees a traceback for what a file or a flag can do."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sightline.errors import SightlineError

if TYPE_CHECKING:
    import typer

FINE, AGAINST, USAGE, FAILED = 0, 1, 2, 3
INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGPIPE: whoever read the output has gone, as the shell reports it for any program."""


def guarded(command: Callable[[], int]) -> int:
    """Run a command and turn whatever it raises into one line on standard error and an exit code."""
    make_outputs_safe()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # a warning of a library is no answer to the user
    try:
        code = command()
        sys.stdout.flush()
    except SightlineError as error:
        return _told(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _told("interrupted", INTERRUPTED)
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.errno == errno.EPIPE:
            _drop_output()
            return BROKEN_PIPE
        _drop_output()
        where = f"{error.filename}: " if error.filename is not None else ""
        return _told(f"{where}{error.strerror or error}", FAILED)
    except MemoryError:
        return _told("out of memory", FAILED)
    except Exception as error:
        if os.environ.get("SIGHTLINE_TRACEBACK"):
            raise
        kind = type(error).__name__
        return _told(f"a fault of Sightline itself: {kind}: {error} (SIGHTLINE_TRACEBACK=1 shows where)", FAILED)
    return code


def run_app(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Parse the arguments of a command and run it.

    Parameters
    ----------
    app : typer.Typer
        The command's application; its function returns an exit code or None.
    name : str
        Name of the command, for its help page.
    arguments : sequence of str
        Words after the name.

    Returns
    -------
    int
        The exit code.
    """
    import typer.main

    wrong_usage: Any = typer.BadParameter.__base__  # the base of every complaint about arguments, whoever vendors click
    command = typer.main.get_command(app)
    try:
        with command.make_context(f"sightline {name}", list(arguments)) as context:
            code = command.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return _told("interrupted", INTERRUPTED)
    except wrong_usage as error:
        words = error.format_message().rstrip(".")
        return _told(f"{words}; see: sightline {name} --help", USAGE)
    return code if isinstance(code, int) else FINE


def say(text: str) -> None:
    """Print text to standard output, in ASCII where that is all it can carry."""
    from sightline.terminal.text import UNICODE, glyphs_for, plain

    sys.stdout.write(text if glyphs_for(sys.stdout.encoding) is UNICODE else plain(text))


def make_outputs_safe() -> None:
    """Let no character and no closed stream stop a command: what an encoding lacks is printed escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # started with the stream closed, as by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _told(message: str, code: int) -> int:
    """Say one line on standard error and return the code."""
    from sightline.terminal.text import printable

    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        print(f"sightline: {printable(message)}", file=sys.stderr, flush=True)
    return code


def _drop_output() -> None:
    """Send what is still buffered nowhere, or the interpreter complains about it at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
