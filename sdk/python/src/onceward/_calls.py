"""What both clients say to the gateway, as flows."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Generator
from typing import Any, cast
from urllib.parse import quote

import httpx

from .answer import Answer
from .errors import (
    AnswerUnreadableError,
    OutcomeUnknownError,
    RefusedError,
    UnreachableError,
    WaitTimeoutError,
    kind_of,
    problem,
    problem_in,
)
from .flow import Ask, Pause, RetryPolicy, is_foreign, retry_after, retrying
from .request import Prepared
from .shapes import OperationStory

#: How often an operation is looked at that is waited for, in seconds: at first, and at the most.
_LOOK = 0.1
_LOOK_MAX = 5.0

#: How long a look may take at least, in seconds, so that it can come back where no time is left.
_LOOK_LAST = 1.0


class Read:
    """An answer that was read whole."""

    def __init__(self, status_code: int, headers: httpx.Headers, content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content


Steps = Generator[Ask | Pause, Read | None, Any]


def answer_of(
    request: Prepared,
    policy: RetryPolicy,
    extra: float = 0.0,
    *,
    is_safe: bool | None = None,
    until: float = math.inf,
) -> Steps:
    """Makes a call; a refusal of the gateway's is raised.

    What stands before the gateway and is left at the end of what can be repeated is no answer.
    """
    safe = request.key is not None if is_safe is None else is_safe
    read: Read = yield from retrying(request, policy, is_safe=safe, extra=extra, until=until)
    if safe and is_foreign(read):
        said = f"no answer came: {read.status_code} of what stands before the gateway"
        raise UnreachableError(said, request.key)
    answer = Answer(read.status_code, read.headers, read.content, request.key)
    _raise_problem(answer)
    return answer


def send(request: Prepared, policy: RetryPolicy, extra: float = 0.0) -> Steps:
    """Makes a call and gives its answer; what is in doubt is raised."""
    answer: Answer = yield from answer_of(request, policy, extra)
    if answer.state == "in_doubt":
        raise _in_doubt(answer.operation, answer.key, answer)
    return answer


def accept(request: Prepared, policy: RetryPolicy, wait: float | None) -> Steps:
    """Has a call remembered; gives the operation, and the outcome where it came in time."""
    if wait is not None and not (math.isfinite(wait) and wait >= 0):
        raise ValueError(f"{wait} is no time to wait in seconds")
    prefer = "respond-async" if wait is None else f"respond-async, wait={math.ceil(wait)}"
    request.headers["prefer"] = prefer
    answer: Answer = yield from send(request, policy, wait or 0.0)
    if answer.operation is None and request.key is not None:
        said = f"no answer came: {answer.status} is not the gateway's"
        raise UnreachableError(said, request.key)
    if answer.operation is None:
        why = (
            f"The upstream answered {answer.status}, and no operation was remembered: a call by"
            f" {request.method} passes without a record where it has no key."
        )
        title = "It was not accepted"
        raise RefusedError(problem("request-invalid", 400, "fix-request", title, why))
    return answer


def ask_for(
    base: str,
    headers: httpx.Headers,
    policy: RetryPolicy,
    method: str,
    path: str,
    body: object = None,
    extra: float = 0.0,
    until: float = math.inf,
) -> Steps:
    """Asks the API how something stands, or says a word of a claim: a repeat changes nothing.

    Gives its answer as it came, and its document; what is none of the API's is raised.
    """
    lines = httpx.Headers(headers)
    lines["accept"] = "application/json"
    content = b""
    if body is not None:
        lines["content-type"] = "application/json"
        content = json.dumps(body, separators=(",", ":")).encode()
    request = Prepared(method, base + path, lines, content, None)
    answer: Answer = yield from answer_of(request, policy, extra, is_safe=True, until=until)
    if not answer.ok:
        # Refusals of the gateway's are problems: this is another's word.
        raise AnswerUnreadableError(f"the answer cannot be read: it has the status {answer.status}")
    try:
        document = answer.json()
    except ValueError as error:
        raise AnswerUnreadableError(f"the answer cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise AnswerUnreadableError("the answer cannot be read: it is no object")
    return answer, document


def ask(
    base: str, headers: httpx.Headers, policy: RetryPolicy, path: str, until: float = math.inf
) -> Steps:
    """Asks how something stands, and gives the document alone."""
    _, document = yield from ask_for(base, headers, policy, "GET", path, until=until)
    return document


def operation(
    base: str, headers: httpx.Headers, policy: RetryPolicy, name: str, until: float = math.inf
) -> Steps:
    """The story of an operation."""
    story = yield from ask(base, headers, policy, operation_path(name), until)
    if not {"id", "state"} <= story.keys():
        raise AnswerUnreadableError("the answer cannot be read: it is no operation")
    return story


def response(base: str, headers: httpx.Headers, policy: RetryPolicy, name: str) -> Steps:
    """The answer that is kept of an operation."""
    kept = yield from ask(base, headers, policy, operation_path(name) + "/response")
    if "status" not in kept:
        raise AnswerUnreadableError("the answer cannot be read: it is none that is kept")
    return kept


def operation_path(operation: str) -> str:
    """Where an operation is looked at."""
    return f"/v1/operations/{quote(operation, safe='')}"


def wait_for(
    base: str, headers: httpx.Headers, policy: RetryPolicy, name: str, timeout: float
) -> Steps:
    """Waits until an operation has ended."""
    end = time.monotonic() + timeout
    look = _LOOK
    while True:
        # Where no time is left, it is looked at once all the same.
        until = max(end, time.monotonic() + _LOOK_LAST)
        told = yield from operation(base, headers, policy, name, until)
        story = cast(OperationStory, told)
        if story["state"] in ("done", "dead"):
            return story
        looks = story["looks"]
        # Where the upstream is asked what it knows, the doubt may end by itself.
        if story["state"] == "in_doubt" and (looks is None or looks["next"] is None):
            raise _in_doubt(story["id"], story["key"])
        left = end - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(f"{name} is {story['state']} still")
        yield Pause(min(look, left))
        look = min(2 * look, _LOOK_MAX)


def _raise_problem(answer: Answer) -> None:
    """Raises a refusal of the gateway's: an upstream's own problems are its answers."""
    if answer.status < 400 or "json" not in answer.headers.get("content-type", ""):
        return
    # The gateway takes this header off what upstreams say.
    if "onceward-advice" not in answer.headers:
        return
    try:
        found = problem_in(answer.json())
    except ValueError:
        return
    if found is not None:
        raise kind_of(found)(found, key=answer.key, retry_after=retry_after(answer.headers))


def _in_doubt(
    operation: str | None, key: str | None, answer: Answer | None = None
) -> OutcomeUnknownError:
    detail = "No answer says whether it was done."
    if answer is not None:
        detail = f"The upstream answered {answer.status}: that does not say whether it was done."
    status = 409 if answer is None else answer.status
    title = "Nobody knows whether it was done"
    said = problem("outcome-unknown", status, "escalate", title, detail)
    if operation is not None:
        said["operation"] = operation
    said["state"] = "in_doubt"
    return OutcomeUnknownError(said, key=key, answer=answer)
