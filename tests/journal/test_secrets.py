"""Secrets never reach a file; what is none stays."""

from __future__ import annotations

import random
import string
import sys
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np
import orjson
import pytest

from sightline.journal import Recorder, record
from sightline.journal.secrets import Masker, names_secret
from sightline.runs import Action, Checkpoint, Decision, Diagnosis, Finding, Phase, Severity, Status


def _planted() -> dict[str, str]:
    """Return secrets of thirty kinds, made of random characters."""
    draw = random.Random(0)

    def text(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
        return "".join(draw.choice(alphabet) for _ in range(length))

    return {
        "hf": "hf_" + text(34),
        "hf_org": "api_org_" + text(34),
        "openai": "sk-proj-" + text(40) + "1",
        "anthropic": "sk-ant-api03-" + text(60),
        "aws_id": "AKIA" + text(16, string.ascii_uppercase + string.digits),
        "aws_temporary": "ASIA" + text(16, string.ascii_uppercase + string.digits),
        "aws_secret": text(40, string.ascii_letters + "/+"),
        "ghp": "ghp_" + text(36),
        "gho": "gho_" + text(36),
        "ghs": "ghs_" + text(36),
        "github_pat": "github_pat_" + text(22) + "_" + text(59),
        "gitlab": "glpat-" + text(20),
        "slack_bot": "xoxb-" + text(12, string.digits) + "-" + text(24),
        "slack_user": "xoxp-" + text(12, string.digits) + "-" + text(24),
        "google": "AIza" + text(35),
        "jwt": "eyJ" + text(20) + ".eyJ" + text(40) + "." + text(43),
        "wandb": text(40, string.hexdigits.lower()[:16]),
        "comet": text(25),
        "mlflow": text(12),
        "url_password": text(14),
        "db_password": text(11) + "/" + text(4),
        "url_token": text(30),
        "bearer": text(40),
        "basic": text(24),
        "plain_password": text(9),
        "client_secret": text(32),
        "ssh": "-----BEGIN OPENSSH PRIVATE KEY-----\n" + text(200) + "\n-----END OPENSSH PRIVATE KEY-----",
        "npm": "npm_" + text(36),
        "pypi": "pypi-" + text(60),
        "azure": text(43) + "=",
    }


def _places(s: dict[str, str]) -> dict[str, object]:
    """Return a config with the secrets where people leave them."""
    return {
        "hub_token": s["hf"],
        "notes": f"uploaded with {s['hf_org']} and {s['openai']}",
        "extra": {"deep": [{"deeper": {"apiKey": s["comet"], "list": [s["anthropic"], ("x", s["ghp"])]}}]},
        "env": {
            "AWS_ACCESS_KEY_ID": s["aws_id"],
            "AWS_SECRET_ACCESS_KEY": s["aws_secret"],
            "WANDB_API_KEY": s["wandb"],
            "MLFLOW_TRACKING_PASSWORD": s["mlflow"],
        },
        "data": f"s3://bucket/x?key={s['aws_temporary']}",
        "git": f"https://{s['url_token']}@git.example/x.git and https://me:{s['url_password']}@host/p",
        "dsn": f"postgresql://user:{s['db_password']}@db:5432/runs",
        "headers": {"Authorization": f"Bearer {s['bearer']}", "Proxy": f"Authorization: Basic {s['basic']}"},
        "text": "\n".join([s["gho"], s["ghs"], s["github_pat"], s["gitlab"], s["slack_bot"], s["slack_user"]]),
        "google": s["google"],
        "cookie_jar": f"session={s['jwt']}",
        "smtp": {"user": "me", "password": s["plain_password"]},
        "oauth": {"client_secret": s["client_secret"]},
        "key_file": s["ssh"],
        s["npm"]: "a token as a key",
        "command": f"twine upload -p {s['pypi']} --password {s['plain_password']}",
        "azure": f"AccountName=a;AccountKey={s['azure']};EndpointSuffix=core",
        "long": "x" * 60_000 + " " + s["hf"] + " " + "y" * 60_000,
    }


def test_no_planted_secret_reaches_any_file(tmp_path, monkeypatch):
    """Thirty secrets in config, environment, arguments, errors, findings and decisions: none is found in any file."""
    secrets = _planted()
    assert len(secrets) == 30
    monkeypatch.setenv("WANDB_API_KEY", secrets["wandb"])
    monkeypatch.setenv("SOME_SERVICE_TOKEN", secrets["comet"])
    monkeypatch.setattr(
        sys,
        "argv",
        ["train.py", "--hub_token", secrets["hf"], f"--api-key={secrets['comet']}", "--lr", "1e-4", secrets["gho"]],
    )
    recorder = Recorder.open(tmp_path, config=_places(secrets), name=f"run {secrets['hf']}")
    everywhere = " | ".join(f"{name}: {secret}" for name, secret in secrets.items())
    recorder.configure(config={"late": _places(secrets)})
    recorder.alert(1, Finding("x", Severity.INFO, everywhere, evidence={"why": everywhere}))
    finding = Finding("overfitting", Severity.WARNING, everywhere)
    recorder.decision(
        1, Diagnosis(Phase.HEALTHY, 0.5, (finding,)), Decision(Action.CONTINUE, 1, "checkpoint-1", everywhere)
    )
    recorder.checkpoint(Checkpoint(1, tmp_path / "checkpoint-1"), "saved")
    recorder.log(1, {"loss": 1.0, "bad": secrets["hf"]})
    recorder.end(Status.FAILED, f"401: {everywhere}")
    recorder.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        content = path.read_bytes()
        for name, secret in secrets.items():
            for part in (secret, secret[len(secret) // 2 - 4 :]):  # nor half of it
                assert part.encode() not in content, f"{name} in {path.name}"
    first = orjson.loads((tmp_path / "sightline/journal.jsonl").read_bytes().splitlines()[0])
    assert first["environment"]["argv"][:2] == ["train.py", "--hub_token"]
    assert first["environment"]["argv"][4:6] == ["--lr", "1e-4"]


def test_an_error_that_ends_a_run_is_masked(tmp_path):
    """The first line of an exception may hold the token that was refused."""
    token = _planted()["hf"]
    with pytest.raises(RuntimeError), record(tmp_path) as run:
        raise RuntimeError(f"401 Unauthorized for {token}\nsecond line")
    assert run.run().end_reason == "RuntimeError: 401 Unauthorized for hf_***"
    assert token not in (tmp_path / "sightline/journal.jsonl").read_text()


INNOCENT = {
    "pad_token": "<|endoftext|>",
    "eos_token": "</s>",
    "bos_token": "[BOS] and more",
    "image_token": "image placeholder",
    "max_new_tokens": 128,
    "num_input_tokens_seen": 12345,
    "include_tokens_per_second": "all_tokens",
    "tokenizer": "meta-llama/Llama-3-8B",
    "tokenizer_name_or_path": "outputs/tokenizer",
    "push_to_hub": True,
    "hub_token": None,
    "use_auth_token": False,
    "learning_rate": 2e-5,
    "run_name": "sk-learn-baseline",
    "model_name_or_path": "hf_internal/tiny-random",
    "commit": "0123456789abcdef0123456789abcdef01234567",
    "url": "https://huggingface.co/datasets/x/y@main",
    "endpoint": "http://localhost:8080/v1",
    "primary_key": "id",
    "lr_scheduler_type": "cosine",
    "keys": ["a", "b"],
    "monkey": "banana",
    "author": "a person of letters",
    "message": "key: value, step: 100, loss=1.25 (best=0.98)",
    "label_names": ["labels"],
    "basic": "basic functionality, token classification",
}


def test_what_is_no_secret_stays():
    """A config is worth recording only if it stays what it was."""
    assert Masker().json(INNOCENT) == INNOCENT


NAMES = (
    "hub_token HF_TOKEN token WANDB_API_KEY apiKey api-key accessToken password DB_PASSWORD passwd client_secret auth "
    "aws_secret_access_key private_key ssh_key credentials push_to_hub_token Authorization smtp_pass db_pwd"
)


@pytest.mark.parametrize("key", NAMES.split())
def test_keys_that_name_a_secret(key):
    """However they are spelt."""
    assert names_secret(key, "s3cr3t-value") and Masker().json({key: "s3cr3t-value"}) == {key: "***"}


def test_a_secret_is_known_by_its_value_elsewhere():
    """What stands under ``password`` is masked in a text that does not call it so."""
    masker = Masker({"MY_SERVICE_KEY": "plainwords99"})
    masker.json({"password": "correct-horse"})
    assert masker.text("login with correct-horse and plainwords99 failed") == "login with *** and *** failed"


def test_masking_twice_changes_nothing_more():
    """What is masked is no secret."""
    masker = Masker()
    once = masker.json(_places(_planted()))
    assert Masker().json(once) == once


def test_any_object_becomes_strict_json():
    """Configs hold paths, enums, dataclasses, arrays, NaN and objects that fail to print."""

    class Colour(Enum):
        RED = "red"

    @dataclass
    class Part:
        rate: float

    class Rude:
        def __str__(self) -> str:
            raise RuntimeError("no")

    endless: dict[str, object] = {}
    endless["self"] = [endless, endless]
    config = {
        "path": Path("a/b"),
        "enum": Colour.RED,
        "part": Part(0.5),
        "number": np.float32(0.25),
        "nan": float("nan"),
        "big": 10**30,
        "set": {"b", "a"},
        "rude": Rude(),
        "bytes": b"raw",
        "surrogate": "\ud800",
        3: "a key that is no text",
        "endless": endless,
    }
    masked = Masker().json(config)
    assert orjson.loads(orjson.dumps(masked)) == masked
    assert masked["path"] == "a/b" and masked["enum"] == "red" and masked["part"] == {"rate": 0.5}
    assert masked["number"] == 0.25 and masked["nan"] == "NaN" and masked["set"] == ["a", "b"]
    assert masked["rude"] == "<Rude>" and masked["big"] == str(10**30) and masked["3"]


HOSTILE = [
    "a" * 100_000,
    "sk-" * 33_000,
    "eyJ" * 33_000,
    "eyJaaaaaaaa." * 8_000,
    "key=" * 25_000,
    "a://" * 25_000,
    "a:" * 50_000,
    "://" + "a:" * 50_000,
    "-----BEGIN PRIVATE KEY-----" * 3_700,
    "authorization: " * 6_600,
    "bearer " * 14_000,
    "--a " * 25_000,
    "password " * 11_000,
    '"' * 100_000,
    " " * 100_000,
    "a.b-c_" * 16_000,
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12])
def test_masking_is_linear_in_the_length_of_the_text(text):
    """A text of 100,000 hostile characters takes about ten times one of 10,000, not a hundred times."""
    masker = Masker()

    def seconds(piece: str) -> float:
        best = 9e9
        for _ in range(3):
            start = time.process_time()
            masker.text(piece)
            best = min(best, time.process_time() - start)
        return best

    assert seconds(text) < max(0.05, 40 * seconds(text[:10_000]))
