"""A call as it goes to the gateway: its address, its headers and its bytes, all made once."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

import httpx

from .keys import is_safe, key_field, new_key, read_key
from .units import duration

#: What headers may be written as.
Headers = Mapping[str, str] | Iterable[tuple[str, str]] | httpx.Headers


@dataclass(frozen=True)
class Prepared:
    """A call, made ready: whatever is drawn for it is drawn."""

    method: str
    url: str
    headers: httpx.Headers
    content: bytes
    key: str | None


@dataclass(frozen=True)
class Options:
    """What is asked of the gateway for one call."""

    #: A word for people and filters.
    label: str | None = None
    #: What it is about, and its place among those about the same.
    subject: str | None = None
    sequence: int | None = None
    #: Calls of one flow take turns fairly with those of others.
    flow_key: str | None = None
    #: No attempt begins before that many seconds are over.
    delay: float | None = None
    #: No attempt begins after; with its zone.
    deadline: datetime | None = None
    #: Who is told of its end.
    callback: str | None = None
    #: The operation that it follows from.
    parent: str | None = None
    #: Of a URL: what a second arrival would do.
    effects: str | None = None

    def lines(self) -> list[tuple[str, str]]:
        """The headers that say so."""
        if self.deadline is not None and self.deadline.tzinfo is None:
            raise ValueError("the deadline has no zone: say which time it is, as by `tzinfo=UTC`")
        said: dict[str, object] = {
            "label": self.label,
            "subject": self.subject,
            "sequence": self.sequence,
            "flow-key": self.flow_key,
            "delay": None if self.delay is None else duration(self.delay),
            "deadline": None if self.deadline is None else self.deadline.isoformat(),
            "callback": self.callback,
            "parent": self.parent,
            "effects": self.effects,
        }
        return [(f"onceward-{name}", str(it)) for name, it in said.items() if it is not None]


def address_of(base: str, to: str, path: str = "") -> str:
    """The address of what is called; what a URL's rules would change could lead elsewhere."""
    if not to:
        raise ValueError("`to` is empty: name a route, as in `demo` or `demo/orders`")
    if path and path[0] not in "/?":
        raise ValueError(f"the path {path!r} does not begin with a slash")
    target = (to.removesuffix("/") if path.startswith("/") else to) + path
    if re.search(r"[\s\\#]", target):
        raise ValueError("an address has no space, backslash or `#`: percent-encode them")
    parts = target.partition("?")[0].split("/")
    if any(re.fullmatch(r"(\.|%2e){1,2}", part, re.IGNORECASE) for part in parts):
        raise ValueError("an address has no `.` or `..` between its slashes")
    return f"{base}/to/{target.removeprefix('/')}"


def content_of(body: object, form: Mapping[str, object] | None) -> tuple[bytes, str | None]:
    """What a body is as bytes, and its type: made once, so that every call has the same."""
    if form is not None:
        if body is not None:
            raise TypeError("a call has a body or a form, not both")
        return urlencode(form, doseq=True).encode(), "application/x-www-form-urlencoded"
    if body is None:
        return b"", None
    if isinstance(body, str):
        return body.encode(), None
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), None
    if hasattr(body, "read") or hasattr(body, "__next__"):
        raise TypeError("a file or an iterator is not the same bytes each time: give its bytes")
    return json.dumps(body, separators=(",", ":")).encode(), "application/json"


def prepare(
    base: str,
    to: str,
    path: str,
    method: str,
    headers: Headers | None,
    body: object,
    form: Mapping[str, object] | None,
    key: str | None,
    options: Options,
) -> Prepared:
    """The call with all that it is sent with each time; a key is drawn here and nowhere later."""
    method = method.upper()
    lines = httpx.Headers(headers if isinstance(headers, Mapping) else list(headers or []))
    content, kind = content_of(body, form)
    if kind is not None:
        lines.setdefault("content-type", kind)
    given = None
    if key is None and (field := lines.get("idempotency-key")) is not None:
        # As the gateway reads it: `"a"` and `a` are one key.
        given = read_key(field)
        if given is None:
            raise ValueError("the header Idempotency-Key cannot be read as a key")
    if key is None and given is None and not is_safe(method):
        key = new_key()
    if key is not None:
        lines["idempotency-key"] = key_field(key)
    for name, value in options.lines():
        lines[name] = value
    named = given if key is None else key
    return Prepared(method, address_of(base, to, path), lines, content, named)
