"""Idempotency keys: made, written into a header, and read from one."""

from __future__ import annotations

import re
import uuid

#: The longest key, in bytes.
KEY_BYTES_MAX = 255

_VISIBLE = re.compile(r"[!-~]([ -~]*[!-~])?")
_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"[ \t]*(?:;.*)?')


def new_key() -> str:
    """A key that nobody else has: random. Make it once for each intended effect."""
    return str(uuid.uuid4())


def _wrong_with(key: str) -> str | None:
    if not key:
        return "it is empty"
    if len(key) > KEY_BYTES_MAX:
        return f"it is longer than {KEY_BYTES_MAX} bytes"
    if not _VISIBLE.fullmatch(key):
        return "it has other than visible letters of ASCII"
    return None


def key_field(key: str) -> str:
    """`key` as a header carries it: bare, or quoted where bare it would be read otherwise."""
    if wrong := _wrong_with(key):
        raise ValueError(f"the idempotency key cannot be used: {wrong}")
    if re.search(r'[",\\ ]', key):
        return '"' + re.sub(r'(["\\])', r"\\\1", key) + '"'
    return key


def read_key(field: str) -> str | None:
    """The key that a header carries, or nothing where it is malformed: `"a"` and `a` are one."""
    key = field.strip(" \t")
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        if quoted is None:
            return None
        key = re.sub(r'\\(["\\])', r"\1", quoted[1])
    elif re.search(r'[",\\ \t]', key):
        return None
    return None if _wrong_with(key) else key


def is_safe(method: str) -> bool:
    """Whether a call by this method has no effect, so that it needs no key."""
    return method.upper() in ("GET", "HEAD", "OPTIONS", "TRACE")
