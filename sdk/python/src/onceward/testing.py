"""A gateway in memory, for tests: no server, no disk, the same answers.

It has the two scripted upstreams of `onceward serve` (`demo` and `demo-unsafe`, with
`?script=503,drop,201`), and whatever routes a test gives it:

    gateway = FakeGateway()
    onceward = Onceward(transport=gateway.transport)        # or AsyncOnceward

It has no time: pauses between attempts are none, accepted calls are made before their 202 is back,
leases end where a test says so, and windows never do; only a key that is given back for later is
free no earlier than that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import unquote

import httpx

from ._fakes import FakeClaims, FakeTransport, refuse
from .asgi import meaning
from .keys import is_safe, read_key
from .shapes import Advice, Effects, ProblemCode, State

#: What an upstream does: it answers, or raises where no answer comes.
Upstream = Callable[[httpx.Request], httpx.Response]

#: Attempts for a caller who waits, and for nobody.
_HELD_MAX = 3
_ACCEPTED_MAX = 12

_KEPT = ("content-type", "location", "etag", "link", "content-encoding", "last-modified")

_EPOCH = "1970-01-01T00:00:00.000Z"


class UnsentError(Exception):
    """Raised by an upstream that was not reached: provably nothing was sent."""


@dataclass(frozen=True)
class FakeRoute:
    """A route of the double."""

    upstream: Upstream
    #: What a second arrival would do; by the method where nothing is said.
    effects: Effects | None = None


@dataclass(frozen=True)
class _Attempt:
    status: int | None
    is_unsent: bool
    may_have_executed: bool


@dataclass
class _Operation:
    id: str
    route: str
    key: str
    parts: dict[str, str]
    request: httpx.Request
    effects: Effects
    mode: Literal["held", "accepted"]
    state: State = "pending"
    attempts: list[_Attempt] = field(default_factory=list)
    outcome: httpx.Response | None = None
    #: The last answer, which is none to keep.
    last: httpx.Response | None = None


class FakeGateway:
    """A gateway in memory. It may be shared by threads, which take turns."""

    def __init__(self, routes: dict[str, FakeRoute] | None = None) -> None:
        self._routes = {
            "demo": FakeRoute(_demo(dedupes=True), "keyed"),
            "demo-unsafe": FakeRoute(_demo(dedupes=False), "non-idempotent"),
            **(routes or {}),
        }
        self._operations: dict[str, _Operation] = {}
        self._by_key: dict[tuple[str, str], _Operation] = {}
        self._count = 0
        self._claims = FakeClaims(self._made)
        self._lock = threading.RLock()
        #: What a client of either kind is given as its `transport`.
        self.transport = FakeTransport(self._handle)

    def resolve(
        self,
        operation: str,
        to: Literal["done", "not-sent"],
        *,
        status: int = 200,
        body: bytes = b"",
    ) -> None:
        """Says what became of an operation in doubt, as a person does."""
        found = self._operations[operation]
        if found.state != "in_doubt":
            raise ValueError(f"{operation} is not in doubt")
        found.last = None
        found.state = "dead"
        if to == "done":
            found.state = "done"
            found.outcome = httpx.Response(status, content=body)

    def lapse(self, scope: str, key: str) -> None:
        """Ends the lease of a claim, as time does."""
        with self._lock:
            self._claims.lapse(scope, key)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            path = request.url.raw_path.decode("ascii").partition("?")[0]
            if path.startswith("/to/"):
                return self._call(request, path.removeprefix("/to/"))
            parts = [unquote(part) for part in path.split("/")[2:]]
            if parts[0] == "operations" and len(parts) > 1:
                return self._tell(parts[1], parts[2] if len(parts) > 2 else None)
            if parts[0] == "claims" and len(parts) > 2:
                words = json.loads(request.content or b"{}")
                verb = parts[3] if len(parts) > 3 else None
                return self._claims.answer(parts[1], parts[2], verb, words)
            title = "There is no such thing"
            return refuse("not-found", 404, "fix-request", title, "It is not in the double.")

    def _call(self, request: httpx.Request, target: str) -> httpx.Response:
        name, _, rest = target.partition("/")
        route = self._routes.get(name)
        if route is None:
            detail = f"No route is called {name!r}."
            return refuse("route-unknown", 404, "fix-request", "There is no such route", detail)
        lines = [it for it in request.headers.multi_items() if not it[0].startswith("onceward-")]
        query = request.url.query.decode("ascii")
        url = f"http://{name}/{rest}" + (f"?{query}" if query else "")
        asked = httpx.Request(request.method, url, headers=lines, content=request.content)
        field_of_key = request.headers.get("idempotency-key")
        if is_safe(request.method) and field_of_key is None:
            return route.upstream(asked)
        key = str(uuid.uuid4()) if field_of_key is None else read_key(field_of_key)
        if key is None:
            title = "The idempotency key cannot be read"
            return refuse("key-invalid", 400, "fix-request", title, "Nothing was sent.")
        prefer = request.headers.get("prefer", "")
        is_accepted = "respond-async" in prefer
        parts = {
            "method": request.method,
            "path": rest,
            "query": query,
            "content-type": request.headers.get("content-type", ""),
            "body": hashlib.sha256(request.content).hexdigest(),
        }
        operation = self._by_key.get((name, key))
        is_known = operation is not None
        if operation is not None and operation.parts != parts:
            return _mismatch(operation, parts)
        if operation is None:
            operation = self._remember(name, key, route, asked, parts, is_accepted)
        may_run = operation.state in ("pending", "dead") and operation.outcome is None
        before = replace(operation, state="pending", attempts=[])
        if may_run:
            _deliver(operation, route, _ACCEPTED_MAX if is_accepted else _HELD_MAX)
            if is_accepted and "wait=" not in prefer:
                return _answer(before, is_accepted=True, is_replay=False)
        is_replay = is_known and not may_run
        answer = _answer(operation, is_accepted=is_accepted, is_replay=is_replay)
        if field_of_key is None:
            answer.headers["onceward-key-made"] = "true"
        return answer

    def _remember(
        self,
        name: str,
        key: str,
        route: FakeRoute,
        request: httpx.Request,
        parts: dict[str, str],
        is_accepted: bool,
    ) -> _Operation:
        by_method: Effects = "non-idempotent"
        if request.method in ("PUT", "DELETE"):
            by_method = "idempotent"
        request.headers["idempotency-key"] = key
        mode: Literal["held", "accepted"] = "accepted" if is_accepted else "held"
        made = self._made()
        operation = _Operation(made, name, key, parts, request, route.effects or by_method, mode)
        self._operations[made] = self._by_key[name, key] = operation
        return operation

    def _made(self) -> str:
        self._count += 1
        return f"op_0{self._count:025}"

    def _tell(self, made: str, part: str | None) -> httpx.Response:
        operation = self._operations.get(made)
        if operation is None:
            detail = f"No operation {made} is in the ledger."
            return refuse("not-found", 404, "fix-request", "There is no such thing", detail)
        if part is None:
            return httpx.Response(200, json=_story(operation))
        kept = operation.outcome or operation.last
        if part != "response" or kept is None:
            title = "There is no answer to show"
            return refuse("no-outcome", 404, "wait", title, "It has none yet.")
        said = {
            "status": kept.status_code,
            "headers": [list(line) for line in kept.headers.multi_items()],
            "body": kept.text,
            "body_base64": None,
        }
        return httpx.Response(200, json=said)


def _deliver(operation: _Operation, route: FakeRoute, attempts_max: int) -> None:
    is_harmless = operation.effects != "non-idempotent"
    for attempt in range(1, attempts_max + 1):
        kept: httpx.Response | None = None
        is_unsent = False
        try:
            kept = route.upstream(operation.request)
            kept.read()
        except Exception as error:
            # Whatever an upstream of a test raises is an answer that did not come.
            is_unsent = isinstance(error, UnsentError)
        means = "ambiguous"
        if kept is not None:
            means = meaning(kept.status_code, "retry-after" in kept.headers)
        operation.last = kept
        status = None if kept is None else kept.status_code
        may_have = not is_unsent and means != "refused"
        operation.attempts.append(_Attempt(status, is_unsent, may_have))
        if kept is not None and means == "final":
            operation.outcome = kept
            is_dead_letter = operation.mode == "accepted" and kept.status_code >= 400
            operation.state = "dead" if is_dead_letter else "done"
            return
        is_not_processed = is_unsent or status in (408, 421, 425, 429)
        may_run = is_not_processed or (means == "ambiguous" and is_harmless)
        if may_run and attempt < attempts_max:
            continue
        is_open = not is_not_processed and means == "ambiguous" and not is_harmless
        operation.state = "in_doubt" if is_open else "dead"
        return


def _advice(operation: _Operation) -> Advice | None:
    if operation.state in ("pending", "delivering"):
        return "wait"
    if operation.state == "in_doubt":
        return "escalate"
    is_open = operation.state == "dead" and operation.outcome is None
    return "same-key" if is_open else None


def _answer(operation: _Operation, *, is_accepted: bool, is_replay: bool) -> httpx.Response:
    """What whoever asks is answered, by where the operation stands."""
    is_kept = operation.outcome is not None
    headers = {
        "onceward-operation": operation.id,
        "onceward-state": operation.state,
        "onceward-attempts": str(len(operation.attempts)),
        "idempotency-key": operation.key,
        "idempotent-replayed": "true" if is_replay and is_kept else "false",
    }
    if (advice := _advice(operation)) is not None:
        headers["onceward-advice"] = advice
    if operation.state == "pending" and is_accepted:
        headers["location"] = f"/v1/operations/{operation.id}"
        return httpx.Response(202, json=_story(operation), headers=headers)
    is_doubt = operation.state == "in_doubt"
    kept = operation.outcome or (None if is_replay and is_doubt else operation.last)
    about = {"operation": operation.id, "state": operation.state}
    if is_doubt and kept is None:
        title = "Nobody knows whether it was done"
        detail = "The request was sent and no answer says whether it was done."
        status = 409 if is_replay else 504
        code: ProblemCode = "outcome-unknown"
        return refuse(code, status, "escalate", title, detail, headers=headers, **about)
    if kept is None:
        headers["retry-after"] = "1"
        if all(attempt.is_unsent for attempt in operation.attempts):
            code, status, title = "upstream-unreachable", 503, "The upstream was not reached"
        else:
            code, status, title = "no-answer", 504, "The upstream gave no answer"
        detail = "The same key goes on under the same operation."
        return refuse(code, status, "same-key", title, detail, headers=headers, **about)
    lines = [it for it in kept.headers.multi_items() if not is_replay or it[0] in _KEPT]
    lines = [it for it in lines if it[0] not in ("content-length", "transfer-encoding")]
    return httpx.Response(
        kept.status_code, headers=[*lines, *headers.items()], content=kept.content
    )


def _mismatch(operation: _Operation, parts: dict[str, str]) -> httpx.Response:
    differs = [part for part, said in parts.items() if said != operation.parts[part]]
    title = "The key was used for another request"
    detail = f"It differs in: {', '.join(differs)}. Nothing was sent; a new intent needs a new key."
    operated = operation.id
    return refuse(
        "key-mismatch", 409, "new-key", title, detail, differs=differs, operation=operated
    )


def _story(operation: _Operation) -> dict[str, Any]:
    outcome = operation.outcome
    ok = None if outcome is None else outcome.status_code < 400
    has_ended = operation.state in ("done", "dead")
    reason = "exhausted" if outcome is None else "refused"
    nothing = (
        "via label flow subject superseded_by due_at send_by lease_until key_expires_at"
        " upstream_key forgotten looks risk parent callback"
    )
    return {
        **dict.fromkeys(nothing.split()),
        "id": operation.id,
        "tenant": "default",
        "principal": "",
        "route": operation.route,
        "kind": "call",
        "scope": operation.route,
        "key": operation.key,
        "state": operation.state,
        "mode": operation.mode,
        "effects": operation.effects,
        "ok": ok,
        "told": operation.mode == "held",
        "reason": reason if operation.state == "dead" else None,
        "method": operation.request.method,
        "path": operation.request.url.raw_path.decode("ascii"),
        "created_at": _EPOCH,
        "ended_at": _EPOCH if has_ended else None,
        "attempts": [
            {
                "n": n,
                "started_at": _EPOCH,
                "ended_at": _EPOCH,
                "ending": _ending(attempt),
                "reached": None,
                "status": attempt.status,
                "error": None,
                "may_have_executed": attempt.may_have_executed,
                "excerpt": False,
            }
            for n, attempt in enumerate(operation.attempts, 1)
        ],
        "outcome": None
        if outcome is None
        else {
            "status": outcome.status_code,
            "ok": ok,
            "source": "upstream",
            "retained": True,
        },
        "aliases": [],
        "acts": [],
        "retry": "",
        "ids": {},
        "duplicates": {"count": 0, "last": []},
    }


def _ending(attempt: _Attempt) -> str:
    if attempt.status is not None:
        return "answered"
    return "unsent" if attempt.is_unsent else "unanswered"


def _demo(*, dedupes: bool) -> Upstream:
    """A scripted upstream: what each call with a key meets, and how often it was charged."""
    counts = {"count": 0, "calls": 0}
    seen: dict[str, tuple[int, int | None]] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/effects" or request.method == "GET":
            return httpx.Response(200, json=dict(counts))
        counts["calls"] += 1
        key = request.headers.get("idempotency-key", "")
        calls, charged = seen.get(key, (0, None))
        steps = [step.strip() for step in request.url.params.get("script", "201").split(",")]
        step = steps[min(calls, len(steps) - 1)]
        is_charged = step == "drop" or step.startswith("2")
        charge = charged if dedupes else None
        if is_charged and charge is None:
            counts["count"] += 1
            charge = counts["count"]
        seen[key] = (calls + 1, charge if charge is not None else charged)
        if step == "drop":
            raise ConnectionResetError("the script drops the answer")
        if not re.fullmatch(r"[2-5][0-9]{2}", step):
            return httpx.Response(400, json={"error": "script: statuses or `drop`, with commas"})
        if step == "204":
            return httpx.Response(204)
        said = {"charged": True, "order": charge} if is_charged else {"charged": False}
        return httpx.Response(int(step), json=said)

    return answer


def sign_webhook(
    payload: bytes | str,
    secret: str,
    *,
    event: str | None = None,
    at: datetime | None = None,
) -> dict[str, str]:
    """Signs a webhook as Standard Webhooks have it: the headers that it is sent with."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    name = event or f"msg_{uuid.uuid4()}"
    seconds = str(int((at or datetime.now(UTC)).timestamp()))
    body = payload.encode() if isinstance(payload, str) else payload
    signed = hmac.digest(key, f"{name}.{seconds}.".encode() + body, "sha256")
    signature = f"v1,{base64.b64encode(signed).decode()}"
    return {
        "webhook-id": name,
        "webhook-timestamp": seconds,
        "webhook-signature": signature,
    }
