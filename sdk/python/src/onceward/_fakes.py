"""What the double is made of beside its routes: refusals, a transport, and the claims.

Words about claims are weighed as the gateway weighs them.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx

from .errors import problem
from .shapes import Advice, Effects, ProblemCode
from .units import read_duration

#: How long whoever waits for somebody else's outcome looks away, in seconds.
_LOOK = 0.002

#: Nobody is asked to stay away for longer where somebody has it in hand, in milliseconds.
_BUSY_MS = 10

_LEASE = 30.0

_Stand = Literal["acquired", "done", "in_doubt", "released", "lapsed"]

#: What a word about how it ended is worth: it is believed, was said before, or comes too late.
_Worth = Literal["holds", "said", "stale"]

_WORTH: dict[str, dict[_Stand, _Worth]] = {
    "complete": {"acquired": "holds", "in_doubt": "holds", "lapsed": "holds", "done": "said"},
    "release": {"acquired": "holds", "in_doubt": "holds", "released": "said", "lapsed": "said"},
    "give up": {"acquired": "holds", "in_doubt": "said", "lapsed": "said"},
    "renew": {"acquired": "holds"},
}


def refuse(
    code: ProblemCode,
    status: int,
    advice: Advice,
    title: str,
    detail: str,
    *,
    headers: dict[str, str] | None = None,
    **more: object,
) -> httpx.Response:
    """A problem as a response."""
    said = {**problem(code, status, advice, title, detail), **more}
    lines = {
        **(headers or {}),
        "content-type": "application/problem+json",
        "onceward-advice": advice,
    }
    return httpx.Response(status, headers=lines, content=json.dumps(said).encode())


class FakeTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """The way to a gateway in memory, for clients of either kind."""

    def __init__(self, handle: Callable[[httpx.Request], httpx.Response]) -> None:
        self._handle = handle

    def _tries(self, request: httpx.Request) -> Iterator[httpx.Response]:
        """Answers, as long as a begin waits for somebody else's outcome; the last one counts."""
        end = time.monotonic() + _wait_of(request)
        while True:
            answer = self._handle(request)
            yield answer
            if not answer.extensions.get("busy") or time.monotonic() >= end:
                return

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answers a client that blocks."""
        request.read()
        tries = self._tries(request)
        last = next(tries)
        for answer in tries:
            time.sleep(_LOOK)
            last = answer
        return last

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answers an asynchronous one."""
        await request.aread()
        tries = self._tries(request)
        last = next(tries)
        for answer in tries:
            await asyncio.sleep(_LOOK)
            last = answer
        return last


def _wait_of(request: httpx.Request) -> float:
    """How long a begin waits for somebody else's outcome."""
    if not request.url.path.endswith("/begin"):
        return 0.0
    return read_duration(json.loads(request.content or b"{}").get("wait")) or 0.0


@dataclass
class _Known:
    key: str
    attempt: int
    effects: Effects
    operation: str
    fence: int
    lease_until: datetime
    holder: str | None
    fingerprint: str | None
    nonce: str | None
    stand: _Stand = "acquired"
    outcome: object = None
    ok: bool = True
    #: When it may be begun again that was given back for later.
    free_at: float = 0.0

    def lapsed(self) -> _Stand:
        """How it stands where nobody knows whether it was done."""
        return "in_doubt" if self.effects == "non-idempotent" else "lapsed"

    def shown(self) -> dict[str, Any]:
        """The claim, with what belongs to how it stands."""
        said: dict[str, Any] = {
            "key": self.key,
            "status": self.stand,
            "attempt": self.attempt,
            "effects": self.effects,
            "operation": self.operation,
        }
        if self.stand == "acquired":
            said["fence"] = self.fence
            said["lease_until"] = self.lease_until.isoformat()
            if self.holder is not None:
                said["holder"] = self.holder
        elif self.stand == "done":
            said["outcome"], said["ok"] = self.outcome, self.ok
        return said


class FakeClaims:
    """All claims, by scope and key."""

    def __init__(self, new_operation: Callable[[], str]) -> None:
        self._known: dict[tuple[str, str], _Known] = {}
        self._new_operation = new_operation
        self._fence = time.time_ns() // 1_000_000

    def lapse(self, scope: str, key: str) -> None:
        """Ends the lease of a claim, as time does."""
        known = self._known.get((scope, key))
        if known is None or known.stand != "acquired":
            raise ValueError(f"{key} is in nobody's hand")
        known.stand = known.lapsed()

    def answer(
        self, scope: str, key: str, verb: str | None, words: dict[str, Any]
    ) -> httpx.Response:
        """What is answered; without a verb it is only looked at."""
        if verb == "begin":
            return self._begin((scope, key), words)
        known = self._known.get((scope, key))
        if known is None:
            return _nothing_there(f"Nobody has begun {key}.")
        if verb is None:
            status = "busy" if known.stand == "acquired" else known.stand
            return httpx.Response(200, json={**known.shown(), "status": status})
        return _said(known, verb, words)

    def _begin(self, place: tuple[str, str], words: dict[str, Any]) -> httpx.Response:
        known = self._known.get(place)
        if known is not None:
            said = _text(words.get("fingerprint"))
            if said is not None and known.fingerprint is not None and said != known.fingerprint:
                title = "The key was used for another request"
                detail = "It differs in: fingerprint. Nothing was sent."
                more: dict[str, Any] = {"differs": ["fingerprint"], "paths": []}
                return refuse("key-mismatch", 409, "new-key", title, detail, **more)
            nonce = words.get("nonce")
            if known.stand == "acquired" and (nonce is None or nonce != known.nonce):
                return _busy(known, _BUSY_MS)
            if known.stand == "released" and (left := known.free_at - time.monotonic()) > 0:
                return _busy(known, math.ceil(left * 1000))
            if known.stand not in ("released", "lapsed"):
                return httpx.Response(200, json=known.shown())
        taken = self._known[place] = self._taken(place[1], words, known)
        return httpx.Response(200, json=taken.shown())

    def _taken(self, key: str, words: dict[str, Any], before: _Known | None) -> _Known:
        """In hand. What it is about, and what a second run would do, the first begin says."""
        self._fence += 1
        effects: Effects = words.get("effects") or "non-idempotent"
        return _Known(
            key,
            1 if before is None else before.attempt + 1,
            effects if before is None else before.effects,
            self._new_operation() if before is None else before.operation,
            self._fence,
            _after(words.get("lease")),
            words.get("holder"),
            _text(words.get("fingerprint")) if before is None else before.fingerprint,
            words.get("nonce"),
        )


def _said(known: _Known, verb: str, words: dict[str, Any]) -> httpx.Response:
    """What a word about a claim comes to."""
    gives_up = words.get("may_have_executed") is True
    table = _WORTH.get("give up" if verb == "release" and gives_up else verb)
    if table is None:
        return _nothing_there("It is begin, complete, release or renew.")
    is_its = words.get("fence") == known.fence
    worth = table.get(known.stand, "stale") if is_its else "stale"
    outcome, ok = words.get("outcome"), words.get("ok") is not False
    is_other = verb == "complete" and _text([outcome, ok]) != _text([known.outcome, known.ok])
    if worth == "stale" or (worth == "said" and is_other):
        return _stale(known)
    if worth == "holds" and verb == "complete":
        known.stand, known.outcome, known.ok = "done", outcome, ok
    elif worth == "holds" and verb == "release":
        known.stand = known.lapsed() if gives_up else "released"
        known.free_at = time.monotonic() + (read_duration(words.get("retry_after")) or 0.0)
    elif verb == "renew":
        known.lease_until = _after(words.get("lease"))
    answer = known.shown()
    if verb == "release" and known.stand == "lapsed":
        # Whoever gives it back is told that, whatever that leaves.
        answer["status"] = "released"
    return httpx.Response(200, json=answer)


def _text(value: object) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)


def _after(lease: object) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=read_duration(lease) or _LEASE)


def _busy(known: _Known, after_ms: int) -> httpx.Response:
    """Only who has it in hand knows its fence."""
    said = {name: value for name, value in known.shown().items() if name != "fence"}
    busy = {**said, "status": "busy", "retry_after_ms": max(1, after_ms)}
    headers = {"retry-after": str(math.ceil(after_ms / 1000))}
    return httpx.Response(200, json=busy, headers=headers, extensions={"busy": True})


def _nothing_there(why: str) -> httpx.Response:
    return refuse("not-found", 404, "fix-request", "There is no such thing", why)


def _stale(known: _Known) -> httpx.Response:
    stands = known.stand.replace("_", " ")
    detail = f"It has been begun since, or has ended: it is {stands}. Nothing was changed."
    title = "Its holder has it in hand no more"
    return refuse("fence-stale", 409, "escalate", title, detail)
