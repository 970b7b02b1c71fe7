"""The JSON of `sightline read`: strict, complete, stable."""

from __future__ import annotations

import json
import math

import pytest

from sightline.cli.reading import as_document
from sightline.decisions import judge_run, verdict_as_json
from sightline.sources import ReadError
from sightline.terminal.strict_json import strict_json
from tests.cli.logs import EVALS, sightline, trainer_state
from tests.terminal import verdicts

NUMBER = (int, float, str)  # a string only for what is not finite
SCHEMA = {
    "path": str,
    "format": str,
    "name": str,
    "n_train": int,
    "n_eval": int,
    "last_step": (int, type(None)),
    "step_unit": str,
    "status": str,
    "phase": str,
    "confidence": (float, type(None)),
    "onset": {"step": int, "low": int, "high": int},
    "best": {"step": int, "eval_loss": NUMBER, "perplexity": NUMBER, "equivalent_steps": list},
    "last": {
        "loss": (*NUMBER, type(None)),
        "eval_loss": (*NUMBER, type(None)),
        "perplexity": (*NUMBER, type(None)),
        "gap": (*NUMBER, type(None)),
    },
    "wasted_fraction": (float, type(None)),
    "decision": {"action": str, "keep_step": (int, type(None)), "keep_checkpoint": (str, type(None)), "why": str},
    "findings": list,
    "gold": {
        "answer": str,
        "gold": str,
        "rows": int,
        "checkpoint": (str, type(None)),
        "step": (int, type(None)),
        "metric": (str, type(None)),
        "base": (*NUMBER, type(None)),
        "tuned": (*NUMBER, type(None)),
        "interval": (list, type(None)),
        "p_value": (*NUMBER, type(None)),
        "forgot": (bool, type(None)),
    },
    "rising_rows": {
        "from_step": int,
        "to_step": int,
        "rise": NUMBER,
        "rows": list,
        "rows_for_half": int,
        "rows_of": int,
    },
}
FINDING = {
    "kind": str,
    "severity": str,
    "from_step": (int, type(None)),
    "to_step": (int, type(None)),
    "message": str,
    "evidence": dict,
}


def assert_schema(value, schema):
    """Every key there, none beyond, each of its type; strings in place of numbers only for what is not finite."""
    assert set(value) == set(schema)
    for key, kind in schema.items():
        if isinstance(kind, dict):
            if value[key] is not None:
                assert_schema(value[key], kind)
            else:
                assert key in ("onset", "best", "gold", "rising_rows")
            continue
        assert isinstance(value[key], kind), key
        if kind is not str and isinstance(value[key], str) and str in kind and int in kind:
            assert value[key] in ("NaN", "Infinity", "-Infinity")


def strictly(text: str):
    """Parse as a strict parser does."""

    def refuse(word):
        raise AssertionError(f"bare {word}")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("name", verdicts.ALL)
def test_document_keeps_to_its_schema(name):
    """Whatever the run: unknown is null and never absent, non-finite numbers are strings."""
    error = ReadError(path=verdicts.textbook().run.path, error="cannot\x1b be read")
    document = strictly(strict_json(as_document([verdict_as_json(verdicts.ALL[name]())], [error])))
    assert set(document) == {"sightline", "runs", "errors"} and document["sightline"] == 1
    assert document["errors"] == [{"path": "outputs/textbook", "error": "cannot\x1b be read"}]
    (run,) = document["runs"]
    assert_schema(run, SCHEMA)
    for finding in run["findings"]:
        assert_schema(finding, FINDING)


def test_command_prints_what_the_library_says(tmp_path):
    """The process prints the verdict of judge_run on the run that was read, and nothing else."""
    path = trainer_state(tmp_path / "trainer_state.json")
    document = strictly(sightline("read", path, "--json").stdout)
    (run,) = document["runs"]
    assert run["n_eval"] == len(EVALS) and run["best"]["step"] == 600 and run["best"]["eval_loss"] == 1.72
    assert run["phase"] == "overfitting" and run["decision"]["keep_step"] == 600
    assert math.isclose(run["last"]["gap"], run["last"]["eval_loss"] - run["last"]["loss"])
    assert document["errors"] == []


def test_nan_in_the_log_stays_strict(tmp_path):
    """A state with bare NaN tokens gives JSON without them."""
    path = tmp_path / "trainer_state.json"
    trainer_state(path, evals=(2.0, math.nan, math.inf, math.nan), losses=(2.0, 1.9, 1.8, *[math.nan] * 5))
    (run,) = strictly(sightline("read", path, "--json").stdout)["runs"]
    assert run["last"]["loss"] == "NaN" and run["last"]["eval_loss"] == "NaN" and run["phase"] == "diverged"


def test_errors_stand_in_the_document(tmp_path):
    """A path that cannot be read is an entry of errors, the others are runs."""
    path = trainer_state(tmp_path / "a" / "trainer_state.json")
    done = sightline("read", path, tmp_path / "missing", "--json", "--fail-on", "none")
    document = strictly(done.stdout)
    assert done.returncode == 3 and done.stderr == ""
    assert len(document["runs"]) == 1
    assert [error["path"] for error in document["errors"]] == [str(tmp_path / "missing")]


def test_verdict_is_the_librarys(tmp_path):
    """The Python interface says the same as the command."""
    import sightline as public

    path = trainer_state(tmp_path / "trainer_state.json")
    run = public.read(path)
    assert public.diagnose(run) == judge_run(run).diagnosis
    assert public.decide(run) == judge_run(run).decision
