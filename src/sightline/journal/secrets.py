"""Secrets are masked before anything is written: by the name they stand under, by their shape, and by value.

By name: ``password``, ``hub_token``, ``WANDB_API_KEY`` … in a config, on a command line, in text like ``key=value``.
By shape: tokens of Hugging Face, OpenAI, Anthropic, AWS, GitHub, GitLab, Slack, Google, JSON web tokens, private keys,
passwords in URLs, ``Bearer …``.
By value: what an environment variable or a config key of such a name holds is masked wherever it turns up again.

Every pattern is linear in the length of the text: each starts only at the beginning of a word, with bounded repeats.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from enum import Enum
from itertools import pairwise
from os import PathLike
from typing import Any

from sightline.journal.values import to_json_number

MASK = "***"
"""What stands in the place of a secret."""


def _words(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


_STRONG_WORDS = _words(
    "password passwd passphrase passcode secret secrets credential credentials authorization cookie cookies "
    "apikey accesskey secretkey privatekey authtoken accesstoken hubtoken hftoken refreshtoken bearertoken"
)
_KEY_OWNERS = _words(
    "api access private secret signing encryption ssh auth account storage subscription license master service"
)
_TOKEN_OWNERS = _words("auth access api refresh bearer hub hf")
_PASS_OWNERS = _words("smtp db user login mail email ftp proxy http basic")
_SPECIAL_TOKENS = _words(  # eos_token and its kin are words of a tokenizer
    "pad eos bos unk sep cls mask image audio video vision start end stop boi eoi boa eoa special system user "
    "assistant think decoder response instruction separator delimiter prefix middle suffix fim per each num next first "
    "last"
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_NO_WORD = re.compile(r"[^a-z0-9]+")

_SHAPES: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<secret>-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?s:.*?)(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z))",
        r"(?<![A-Za-z0-9_])(?:hf_|api_org_|gh[pousr]_)(?P<secret>[A-Za-z0-9]{16,})",
        r"(?<![A-Za-z0-9_])(?:github_pat_|glpat-|gldt-|npm_|pypi-)(?P<secret>[A-Za-z0-9_-]{16,})",
        r"(?<![A-Za-z0-9])[srp]k-(?=[A-Za-z_-]{0,64}[0-9])(?P<secret>[A-Za-z0-9_-]{16,})",
        r"(?<![A-Za-z0-9])(?:xox[a-z]|xapp)-(?P<secret>[A-Za-z0-9-]{10,})",
        r"(?<![A-Za-z0-9])(?:AKIA|ASIA)(?P<secret>[A-Z0-9]{12,})(?![A-Za-z0-9])",
        r"(?<![A-Za-z0-9_-])AIza(?P<secret>[A-Za-z0-9_-]{30,})",
        r"(?<![A-Za-z0-9_-])(?P<secret>eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]{0,2048})?)",
        r"(?i)(?<![a-z])bearer\s{1,8}(?P<secret>[a-z0-9._~+/=-]{8,})",
        r"(?i)(?<![a-z])authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?:basic|token|digest)\s{1,3})?"
        r"(?!bearer)(?P<secret>[^\s\"',]{1,2048})",
        r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/?#:@\"']{0,256}:(?P<secret>[^\s@\"']{1,512})@",
        r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://(?P<secret>[^\s/?#:@\"']{16,512})@",
    )
)
_ASSIGNED = re.compile(  # key=value, "key": "value", --key=value
    r"(?<![\w.-])(?P<key>[\w.-]{1,100})(?P<sep>[\"']?\s{0,3}[=:]\s{0,3})"
    r"(?P<value>\"[^\"\n]{1,2048}\"|'[^'\n]{1,2048}'|[^\s\"',;&(){}\[\]]{1,2048})"
)
_FLAG = re.compile(r"(?<![\w.-])(?P<key>--?[\w.-]{1,100})(?P<sep>\s{1,3})(?P<value>[^\s-]\S{0,2047})")  # --key value
_NETRC = re.compile(r"(?<![\w.-])(?P<key>password|passwd|token)(?P<sep>\s{1,3})(?P<value>[A-Za-z0-9_-]{20,2048})(?!\w)")

_LITERAL_LENGTH = 8
_LITERAL_LIMIT = 200
_TEXT_LIMIT = 100_000
_DEPTH_LIMIT = 40
_NODE_LIMIT = 50_000


def names_secret(key: str, value: object = None) -> bool:
    """Return whether what stands under a key is a secret.

    Parameters
    ----------
    key : str
        For example ``hub_token``, ``WANDB_API_KEY``, ``apiKey``, ``--password``.
    value : object
        What stands there. It decides for keys ending in ``token``: ``<|im_end|>`` and numbers are no secrets.
    """
    words = [word for word in _NO_WORD.split(_CAMEL.sub("_", key).lower()) if word]
    if not words:
        return False
    if not _STRONG_WORDS.isdisjoint(words) or (words[-1] == "pwd" and len(words) > 1):
        return True
    if any(a in _KEY_OWNERS and b in ("key", "keys") for a, b in pairwise(words)):
        return True
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "pass":
        return not before or before in _PASS_OWNERS
    if words[-1] == "tokens":
        return before in _TOKEN_OWNERS and not isinstance(value, int | float)
    if words[-1] not in ("token", "auth") or before in _SPECIAL_TOKENS:
        return False
    return value is None or (isinstance(value, str) and not _is_special_token(value))


def _is_special_token(value: str) -> bool:
    """Whether a text looks like a word of a tokenizer, or is too short to be a secret."""
    return len(value) < 6 or (value[0] == "<" and value[-1] == ">") or (value[0] == "[" and value[-1] == "]")


class Masker:
    """Masks secrets in texts and in nested values, and remembers those it was shown.

    Parameters
    ----------
    environ : mapping
        Environment variables; the values of those that name a secret are masked wherever they turn up.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._literals: list[str] = []
        for name, value in (environ or {}).items():
            if names_secret(name, value):
                self._learn(value)

    def text(self, text: str) -> str:
        """Return a text without its secrets."""
        left_out = len(text) - _TEXT_LIMIT
        text = text[: _TEXT_LIMIT + 4096]  # so that a secret across the limit is still seen whole
        for literal in self._literals:
            if literal in text:
                text = text.replace(literal, MASK)
        for shape in _SHAPES:
            text = shape.sub(self._mask_shape, text)
        for pattern in (_ASSIGNED, _FLAG, _NETRC):
            text = pattern.sub(self._mask_assigned, text)
        return text if left_out <= 0 else f"{text[: _TEXT_LIMIT - 100]}… ({left_out + 100:,} more characters)"

    def arguments(self, argv: Sequence[str]) -> list[str]:
        """Return a command line without its secrets, be they ``--key=value`` or ``--key value``."""
        masked: list[str] = []
        key = ""
        for argument in argv:
            if key and not argument.startswith("-") and names_secret(key, argument):
                self._learn(argument)
                masked.append(MASK)
            else:
                masked.append(self.text(argument))
            key = argument if argument.startswith("-") and "=" not in argument else ""
        return masked

    def json(self, value: Any, key: str = "") -> Any:
        """Return a nested value as strict JSON can carry it, without its secrets.

        NaN and infinities become strings, paths and enums their text, anything JSON does not know its ``str``, at most
        100,000 characters each, 40 levels and 50,000 values in all. Never raises.
        """
        self._learn_all(value, key, _Budget())
        return self._json(value, key, _Budget(), secret=False)

    def _json(self, value: Any, key: str, budget: _Budget, *, secret: bool) -> Any:
        """Mask one value under its key."""
        value = _plain(value)
        if not budget.take():
            return "… (too large)"
        if isinstance(value, Mapping):
            with budget:
                if budget.too_deep:
                    return "… (too deep)"
                return {
                    self._key(k): self._json(v, str(k), budget, secret=secret or _is_secret_group(key))
                    for k, v in _items(value, budget)
                }
        if isinstance(value, list | tuple | set | frozenset):
            with budget:
                if budget.too_deep:
                    return "… (too deep)"
                return [self._json(v, key, budget, secret=secret) for v in _members(value, budget)]
        if value is None or isinstance(value, bool):
            return value
        if (secret or names_secret(key, value)) and value != "":
            return MASK
        if isinstance(value, int):
            return int(value) if -(2**63) <= value < 2**64 else _str(value)
        if isinstance(value, float):
            return to_json_number(float(value))
        return self.text(_str(value))

    def _key(self, key: Any) -> str:
        """Return a key as text; a token may stand there, too."""
        return self.text(_str(key)[:1000])

    def _learn_all(self, value: Any, key: str, budget: _Budget) -> None:
        """Remember the secrets a nested value names, so that they are masked where they stand without a name."""
        value = _plain(value)
        if not budget.take():
            return
        with budget:
            if budget.too_deep:
                return
            if isinstance(value, Mapping):
                for k, v in _items(value, budget):
                    self._learn_all(v, str(k), budget)
            elif isinstance(value, list | tuple | set | frozenset):
                for v in _members(value, budget):
                    self._learn_all(v, key, budget)
            elif isinstance(value, str):
                self.text(value)  # which learns what stands in it
                if names_secret(key, value):
                    self._learn(value)

    def _learn(self, value: str) -> None:
        """Remember a secret by value, unless it is so short that it stands in innocent words."""
        if len(value) >= _LITERAL_LENGTH and value not in self._literals and len(self._literals) < _LITERAL_LIMIT:
            self._literals.append(value)
            self._literals.sort(key=len, reverse=True)  # the longer first: one may be part of another

    def _learn_from_text(self, value: str) -> None:
        """Remember a secret found in a text, unless it might be a word: ``password: required``."""
        if any(c.isdigit() for c in value) and any(c.isalpha() for c in value):
            self._learn(value)

    def _mask_shape(self, match: re.Match[str]) -> str:
        """Mask the part of a text that has the shape of a secret."""
        if match["secret"] == MASK:
            return match[0]
        self._learn_from_text(match["secret"])
        start = match.start()
        return match[0][: match.start("secret") - start] + MASK + match[0][match.end("secret") - start :]

    def _mask_assigned(self, match: re.Match[str]) -> str:
        """Mask the value of ``key=value`` if the key names a secret."""
        key, separator, value = match["key"], match["sep"], match["value"]
        quote = value[0] if value[0] in "\"'" else ""
        bare = value.strip("\"'")
        if not bare or bare.endswith(MASK) or bare in ("None", "null", "True", "False", "true", "false"):
            return match[0]
        if not names_secret(key, bare):
            return match[0]
        self._learn_from_text(bare)
        return f"{key}{separator}{quote}{MASK}{quote}"


class _Budget:
    """How much of a nested value is still taken; entered once a level."""

    def __init__(self) -> None:
        self.left = _NODE_LIMIT
        self.depth = 0

    def take(self) -> bool:
        """Take one value."""
        self.left -= 1
        return self.left >= 0

    @property
    def too_deep(self) -> bool:
        """Whether the nesting has gone too far."""
        return self.depth > _DEPTH_LIMIT

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1


def _is_secret_group(key: str) -> bool:
    """Whether everything below a key is secret: ``credentials: {user: …, pass: …}``."""
    return bool(key) and names_secret(key)


def _items(value: Mapping[Any, Any], budget: _Budget) -> Iterable[tuple[Any, Any]]:
    """Return the items of a mapping as far as the budget goes."""
    for k, v in value.items():
        if budget.left <= 0:
            return
        yield k, v


def _members(value: Iterable[Any], budget: _Budget) -> Iterable[Any]:
    """Return the members of a collection as far as the budget goes, sets in a fixed order."""
    for member in sorted(value, key=_str) if isinstance(value, set | frozenset) else value:
        if budget.left <= 0:
            return
        yield member


def _plain(value: Any) -> Any:
    """Return enums, paths, dataclasses and scalars of array libraries as what they stand for."""
    try:
        if isinstance(value, Enum):
            return value.value
        if isinstance(value, PathLike):
            return str(value)
        if is_dataclass(value) and not isinstance(value, type):
            return asdict(value)
        if not isinstance(value, str | bytes | int | float) and getattr(value, "ndim", None) == 0:
            return value.item()
    except Exception:
        return _str(value)
    return value


def _str(value: Any) -> str:
    """Return the text of anything, whatever its ``__str__`` does; lone surrogates, which JSON cannot carry, escaped."""
    try:
        text = str(value)
    except Exception:
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
