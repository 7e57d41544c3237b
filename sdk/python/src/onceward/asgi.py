"""Handlers of one's own that run once for a key: a middleware for FastAPI and every ASGI app.

The outcome is in the ledger before it is answered; a duplicate gets it from there.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import math
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, cast
from urllib.parse import quote

from .claims import Granted, Hold, claim_busy, claim_in_doubt
from .client import AsyncOnceward
from .errors import (
    FenceStaleError,
    NotDoneError,
    OncewardError,
    ProblemError,
    UnavailableError,
    UnreachableError,
    problem,
)
from .keys import is_safe, key_field, read_key
from .shapes import Claim, Effects, Problem

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Line = tuple[bytes, bytes]

#: Headers of an answer that are kept: what belongs to one moment or one session is not.
_KEPT = {
    "content-type",
    "content-language",
    "content-encoding",
    "content-disposition",
    "content-location",
    "location",
    "etag",
    "last-modified",
    "link",
    "allow",
    "deprecation",
    "sunset",
}

_LOG = logging.getLogger(__name__)

#: A handler that has not answered by then, its caller gone perhaps, is lost: its lease may end.
_HOLD_MAX = 900.0


class _Kept(TypedDict):
    """An outcome as it lies in the ledger; the same for all SDKs."""

    status: int
    headers: list[list[str]]
    body_base64: str | None


@dataclass(frozen=True)
class Keyed:
    """What a handler learns of its key, as `request.scope["onceward"]`."""

    #: The caller's key.
    key: str
    #: The operation's id: a good key for what the handler does elsewhere.
    operation: str
    #: Grows with each run of a key.
    fence: int


class OnceMiddleware:
    """Has what is behind it run once for each `Idempotency-Key`.

        app.add_middleware(OnceMiddleware, scope="orders", client=AsyncOnceward())

    - `scope`: what the handlers are called together; keys are unique within it.
    - `principal`: who asks, by a name that stays, from the ASGI scope: keys of one are nothing to
      another. Without it all callers are one: whoever has a key and the request gets its answer.
    - `key_missing`: what a request with an effect and without a key meets.
    - `effects`: what a second run would do; by the method where nothing is said.
    - `wait`: how long a duplicate waits for the first, in seconds.
    """

    def __init__(
        self,
        app: App,
        *,
        scope: str,
        client: AsyncOnceward | None = None,
        principal: Callable[[Scope], str | None] | None = None,
        key_missing: Literal["pass", "require"] = "pass",
        effects: Effects | None = None,
        lease: float = 30.0,
        wait: float = 10.0,
        body_bytes_max: int = 1 << 20,
        response_bytes_max: int = 512 << 10,
    ) -> None:
        self._app = app
        self._claims = (client or AsyncOnceward()).claims(scope, lease=lease)
        self._principal = principal
        self._key_missing = key_missing
        self._effects = effects
        self._wait = wait
        self._body_bytes_max = body_bytes_max
        self._response_bytes_max = response_bytes_max
        #: What goes on though its caller may be gone: a task that nobody has may be forgotten.
        self._running: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets a request by, answers it, or has it run."""
        if scope["type"] != "http" or is_safe(scope["method"]):
            await self._app(scope, receive, send)
            return
        fields = [value.decode("latin-1") for name, value in scope["headers"] if name == _KEY]
        if not fields:
            if self._key_missing == "pass":
                await self._app(scope, receive, send)
            else:
                await _refuse(send, _KEY_REQUIRED)
            return
        key = read_key(", ".join(fields))
        if key is None:
            await _refuse(send, _KEY_INVALID)
            return
        try:
            body = await self._body(receive)
        except _GoneError:
            return
        if body is None:
            await _refuse(send, self._too_large())
            return
        # In a task of its own from its begin on: a caller that hangs up changes nothing.
        task = asyncio.create_task(self._once(scope, send, key, body))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            # Nobody else asks how it ended.
            task.add_done_callback(_tell)
            raise
        task.result()

    async def _once(self, scope: Scope, send: Send, key: str, body: bytes) -> None:
        """Begins it, and runs it where it is in hand."""
        effects = self._effects or _effects_of(scope["method"])
        name, about = self._name(key, scope), _fingerprint(scope, body)
        steps = self._claims._take(name, about, effects, self._wait)
        try:
            begun = cast(Granted, await self._claims._client.run(steps))
        except OncewardError as error:
            await _refuse(send, _refusal_of(error), key)
            return
        claim = begun.claim
        if claim["status"] == "acquired":
            await self._run(scope, send, begun, key, body)
        elif claim["status"] == "done":
            await _replay(send, claim, key)
        elif claim["status"] == "in_doubt":
            await _refuse(send, _told(claim_in_doubt(claim)), key)
        else:
            busy = claim_busy(claim)
            await _refuse(send, _told(busy), key, busy.retry_after)

    async def _run(self, scope: Scope, send: Send, begun: Granted, key: str, body: bytes) -> None:
        hold = Hold(self._claims, begun, _HOLD_MAX)
        scope["onceward"] = Keyed(key, hold.held.operation, hold.held.fence)
        held = _Answer(send, self._response_bytes_max)
        is_read = False

        async def again() -> Message:
            nonlocal is_read
            if is_read:
                # That its caller is gone would have frameworks break off what was done already.
                await held.whole.wait()
                return {"type": "http.disconnect"}
            is_read = True
            return {"type": "http.request", "body": body, "more_body": False}

        try:
            await self._app(scope, again, held.take)
            if not held.whole.is_set():
                raise RuntimeError("the handler ended without an answer")
        except BaseException as error:
            await hold.give_back(error)
            raise
        try:
            lines = await _settle(hold, begun.claim, held, key)
        except OncewardError as error:
            if held.is_passed_on:
                raise
            await _refuse(send, _lost(error), key)
            return
        finally:
            hold.stop()
        await held.give(lines)

    async def _body(self, receive: Receive) -> bytes | None:
        """The whole body, which is compared; nothing where it is too large."""
        pieces: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _GoneError
            piece = message.get("body", b"")
            length += len(piece)
            if length > self._body_bytes_max:
                return None
            pieces.append(piece)
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _name(self, key: str, scope: Scope) -> str:
        """The claim's key: whose it is stands before it, so that no other name looks like it."""
        if self._principal is None:
            return key
        name = f"{quote(self._principal(scope) or '', safe='')}/{key}"
        return name if len(name) <= 255 else f"@sha256/{hashlib.sha256(name.encode()).hexdigest()}"

    def _too_large(self) -> Problem:
        detail = f"It takes {self._body_bytes_max} bytes; nothing was done."
        title = "The body is larger than is taken"
        return problem("body-too-large", 413, "fix-request", title, detail)


def _tell(task: asyncio.Task[None]) -> None:
    """Tells an error of a handler whose caller was given up, which nothing else would."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("a handler failed whose caller was gone", exc_info=error)


class _GoneError(Exception):
    """The caller went away before its request was whole."""


_KEY = b"idempotency-key"

_KEY_REQUIRED = problem(
    "key-required",
    400,
    "fix-request",
    "This route wants an Idempotency-Key",
    "Send one of your own making: it names one intended effect.",
)

_KEY_INVALID = problem(
    "key-invalid",
    400,
    "fix-request",
    "The idempotency key cannot be read",
    "Write 1 to 255 visible letters, quoted or without spaces, commas and quotes.",
)


class _Answer:
    """An answer that waits for the ledger; what is too large to keep goes out as it comes."""

    def __init__(self, send: Send, bytes_max: int) -> None:
        self._send = send
        self._bytes_max = bytes_max
        self._messages: list[Message] = []
        self._bytes = 0
        self.is_passed_on = False
        #: Set once the handler has said its last word.
        self.whole = asyncio.Event()
        #: Why nothing more of it can be sent.
        self._unsent: Exception | None = None

    async def take(self, message: Message) -> None:
        """Takes what the handler says."""
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        self._messages.append(message)
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._bytes_max or self.is_passed_on:
            self.is_passed_on = True
            # Its last word waits for the ledger all the same.
            waiting = self._messages if not is_last else self._messages[:-1]
            for earlier in waiting:
                await self._pass_on(earlier)
            self._messages = self._messages[len(waiting) :]
        if message["type"] == "http.response.start":
            self.status: int = message["status"]
            self.lines: list[Line] = list(message.get("headers", []))
        if is_last:
            self.whole.set()

    async def _pass_on(self, message: Message) -> None:
        """Sends it. Where it cannot be, its caller gone perhaps, the handler goes on."""
        if self._unsent is not None:
            return
        try:
            await self._send(message)
        except Exception as error:
            self._unsent = error

    @property
    def body(self) -> bytes:
        """What was said, as far as it waits."""
        return b"".join(message.get("body", b"") for message in self._messages)

    async def give(self, lines: list[Line]) -> None:
        """Sends what waits, with `lines` beside the handler's own."""
        if self._unsent is not None:
            raise self._unsent
        for message in self._messages:
            if message["type"] == "http.response.start":
                message["headers"] = [*self.lines, *lines]
            await self._send(message)


def meaning(status: int, has_retry_after: bool) -> Literal["final", "refused", "ambiguous"]:
    """What a status says of the effect."""
    if status in (501, 505, 506, 508, 510, 511):
        return "refused"
    if status >= 500:
        return "ambiguous"
    if status < 400:
        return "final"
    is_for_now = status in (401, 403, 407, 408, 421, 423, 425, 426, 428, 429, 431)
    return "refused" if is_for_now or has_retry_after else "final"


async def _settle(hold: Hold, claim: Claim, held: _Answer, key: str) -> list[Line]:
    """Writes down how it ended, and gives what is to be said beside the answer."""
    status = held.status
    means = meaning(status, any(name.lower() == b"retry-after" for name, _ in held.lines))
    if means == "final":
        lines = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in held.lines]
        kept: _Kept = {
            "status": status,
            "headers": [[name, value] for name, value in lines if name.lower() in _KEPT],
            "body_base64": None if held.is_passed_on else base64.b64encode(held.body).decode(),
        }
        # It stays in hand until that is heard.
        await hold.end(kept)
        return _lines(key, claim["operation"], "done")
    if means == "refused":
        await hold.give_back(NotDoneError(f"the handler answered {status}: nothing was done"))
        return _lines(key, claim["operation"], "dead", "same-key")
    await hold.give_back(RuntimeError(f"the handler answered {status}"))
    if claim["effects"] == "non-idempotent":
        return _lines(key, claim["operation"], "in_doubt", "escalate")
    return _lines(key, claim["operation"], "dead", "same-key")


def _lines(
    key: str, operation: str, state: str, advice: str | None = None, replayed: bool = False
) -> list[Line]:
    said = [
        ("idempotency-key", key_field(key)),
        ("idempotent-replayed", "true" if replayed else "false"),
        ("onceward-operation", operation),
        ("onceward-state", state),
    ]
    if advice is not None:
        said.append(("onceward-advice", advice))
    return [(name.encode(), value.encode()) for name, value in said]


def _fingerprint(scope: Scope, body: bytes) -> str:
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    path = scope.get("raw_path") or quote(scope["path"]).encode()
    query = scope.get("query_string", b"")
    target = path.partition(b"?")[0] + (b"?" + query if query else b"")
    head = b"\n".join([scope["method"].upper().encode(), target, b", ".join(kinds), b""])
    return hashlib.sha256(head + body).hexdigest()


def _effects_of(method: str) -> Effects:
    return "idempotent" if method.upper() in ("PUT", "DELETE") else "non-idempotent"


def _refusal_of(error: OncewardError) -> Problem:
    """What a refusal is to a handler's caller; what only its owner can mend is raised."""
    if isinstance(error, UnreachableError | UnavailableError):
        detail = "The ledger could not be asked; nothing was done. Ask again with the same key."
        title = "The ledger cannot be used"
        return problem("ledger-unavailable", 503, "same-key", title, detail)
    codes = ("key-mismatch", "key-expired", "key-invalidated", "key-invalid")
    if isinstance(error, ProblemError) and error.code in codes:
        return _told(error)
    raise error


def _lost(error: OncewardError) -> Problem:
    """The handler ran, and the ledger could not be told."""
    if isinstance(error, FenceStaleError):
        return _told(error)
    title = "Nobody knows whether it was done"
    detail = "The handler ran, and its outcome could not be written down."
    return problem("outcome-unknown", 504, "escalate", title, detail)


def _told(error: ProblemError) -> Problem:
    """A problem as a handler's callers get it: where it lies is none of their business."""
    hidden = ("operation", "instance")
    said = {name: value for name, value in error.problem.items() if name not in hidden}
    return cast(Problem, said)


async def _refuse(
    send: Send, said: Problem, key: str | None = None, retry_after: float | None = None
) -> None:
    lines: list[Line] = [
        (b"content-type", b"application/problem+json"),
        (b"cache-control", b"no-store"),
        (b"onceward-advice", said["advice"].encode()),
    ]
    wait = retry_after if retry_after is not None else (1.0 if said["status"] == 503 else None)
    if wait is not None:
        lines.append((b"retry-after", str(math.ceil(wait)).encode()))
    if key is not None:
        lines.append((b"idempotency-key", key_field(key).encode()))
        lines.append((b"idempotent-replayed", b"false"))
    await _answer(send, said["status"], lines, json.dumps(said).encode())


async def _replay(send: Send, claim: Claim, key: str) -> None:
    kept = cast(_Kept, claim.get("outcome") or {})
    coded = kept.get("body_base64")
    if coded is None or "status" not in kept:
        title = "It was done, and its answer is not retained"
        detail = "Its outcome is known, but not its answer."
        said = problem("response-not-retained", 409, "escalate", title, detail)
        await _refuse(send, said, key)
        return
    lines = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in kept["headers"]]
    lines += _lines(key, claim["operation"], "done", replayed=True)
    await _answer(send, kept["status"], lines, base64.b64decode(coded))


async def _answer(send: Send, status: int, lines: list[Line], body: bytes) -> None:
    if status not in (204, 304):
        lines = [*lines, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
