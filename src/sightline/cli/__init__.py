"""The command line: ``main()`` finds the command, its module is imported only then.

One module a command. Each holds a typer application called ``app``; what it returns is the exit code. COMMANDS is
the list that `sightline --help` shows.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from sightline.cli.exits import USAGE, guarded, run_app, say


class Command(NamedTuple):
    """A command as `sightline --help` lists it."""

    module: str
    """Module that holds its ``app``."""
    summary: str
    """What it does, in a line of at most 60 characters."""


COMMANDS: dict[str, Command] = {
    "demo": Command("sightline.cli.demo", "two small fine-tunes, offline: one learns, one memorises"),
    "train": Command("sightline.cli.train", "a fine-tune under watch, stopped at the right step"),
    "check": Command("sightline.cli.check", "what would go wrong, before the first step"),
    "evaluate": Command("sightline.cli.evaluate", "the exact loss of a model on a file of rows"),
    "checkpoints": Command("sightline.cli.checkpoints", "what was saved, what is intact, what to keep"),
    "judge": Command("sightline.cli.judge", "is it better than the base model, on a gold set"),
    "read": Command("sightline.cli.read", "say what became of a run: any log file or folder"),
    "replay": Command("sightline.cli.replay", "what would have been said at every evaluation"),
}

_PLAIN_FLAGS = ("--json", "--no-color")
_HELP_FLAGS = ("--help", "-h")
_USAGE = """\
Sightline keeps a fine-tune in sight: it reads and records training runs, says whether
the model is learning or memorising and since when, and which checkpoint to keep.

usage: sightline PATH…              the same as: sightline read PATH…
       sightline COMMAND [OPTIONS]  see: sightline COMMAND --help

commands:
{commands}

options:
  --version  print the version
  --help     print this page

examples:
  sightline outputs/                      one run, or every run below a folder
  sightline read trainer_state.json --json

exit codes: 0 fine, 1 a verdict against the run, 2 wrong usage, 3 could not read or judge
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after ``sightline``; those of the process unless given.

    Returns
    -------
    int
        The exit code: 0 fine, 1 a verdict against the run, 2 wrong usage, 3 could not read or judge, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return guarded(lambda: _dispatch(words))


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in _HELP_FLAGS:
        say(usage())
        return 0 if words else USAGE
    if words[0] == "--version":
        from sightline import __version__

        say(f"sightline {__version__}\n")
        return 0
    name, rest = (words[0], words[1:]) if words[0] in COMMANDS else ("read", words)
    if name == "read" and words[0] != "read":
        refuse_mistyped(words[0])
    if name == "read" and rest and all(not word.startswith("-") or word in _PLAIN_FLAGS for word in rest):
        return _read_at_once(rest)
    return run_app(import_module(COMMANDS[name].module).app, name, rest)


def _read_at_once(words: list[str]) -> int:
    """Read without typer where there is nothing to parse: importing it takes longer than reading a small log."""
    from pathlib import Path

    from sightline.cli.reading import report

    paths = [Path(word) for word in words if not word.startswith("-")]
    if not paths:
        return run_app(import_module(COMMANDS["read"].module).app, "read", words)
    return report(paths, as_json="--json" in words, no_color="--no-color" in words)


def usage() -> str:
    """Return the page of `sightline --help`."""
    widest = max(map(len, COMMANDS))
    return _USAGE.format(commands="\n".join(f"  {name:<{widest}}  {c.summary}" for name, c in COMMANDS.items()))


def refuse_mistyped(word: str) -> None:
    """Refuse a first word that is neither a command nor a path, and name the nearest command.

    Raises
    ------
    UsageError
        If nothing on disk is called so and it looks like a command.
    """
    from pathlib import Path

    from sightline.errors import UsageError

    if word.startswith("-") or not word.isidentifier() or Path(word).exists():
        return
    from difflib import get_close_matches

    near = get_close_matches(word, COMMANDS, n=1, cutoff=0.6)
    hint = f"did you mean `sightline {near[0]}`?" if near else f"commands are {', '.join(COMMANDS)}"
    raise UsageError(f"{word}: no such file or folder, and no command of that name; {hint}")
