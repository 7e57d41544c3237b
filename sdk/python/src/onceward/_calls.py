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
    OutcomeUnknownError,
    RefusedError,
    WaitTimeoutError,
    kind_of,
    problem,
    problem_in,
)
from .flow import Ask, Pause, RetryPolicy, retry_after, retrying
from .request import Prepared
from .shapes import OperationStory

#: How often an operation is looked at that is waited for, in seconds: at first, and at the most.
_LOOK = 0.1
_LOOK_MAX = 5.0


class Read:
    """An answer that was read whole."""

    def __init__(self, status_code: int, headers: httpx.Headers, content: bytes) -> None:
        self.status_code = status_code
        self.headers = headers
        self.content = content


Steps = Generator[Ask | Pause, Read | None, Any]


def answer_of(request: Prepared, policy: RetryPolicy, extra: float = 0.0) -> Steps:
    """Makes a call; a refusal of the gateway's is raised."""
    read: Read = yield from retrying(request, policy, extra=extra)
    answer = Answer(read.status_code, read.headers, read.content, request.key)
    _raise_problem(answer)
    return answer


def send(request: Prepared, policy: RetryPolicy) -> Steps:
    """Makes a call and gives its answer; what is in doubt is raised."""
    answer: Answer = yield from answer_of(request, policy)
    if answer.state == "in_doubt":
        raise _in_doubt(answer.operation, answer.key, answer)
    return answer


def accept(request: Prepared, policy: RetryPolicy, wait: float | None) -> Steps:
    """Has a call remembered; gives the operation, and the outcome where it came in time."""
    prefer = "respond-async" if wait is None else f"respond-async, wait={math.ceil(wait)}"
    request.headers["prefer"] = prefer
    answer: Answer = yield from send(request, policy)
    if answer.operation is None:
        why = (
            f"The upstream answered {answer.status}, and no operation was remembered: a call by"
            f" {request.method} passes without a record where it has no key."
        )
        title = "It was not accepted"
        raise RefusedError(problem("request-invalid", 400, "fix-request", title, why))
    return answer


def ask(
    base: str,
    headers: httpx.Headers,
    policy: RetryPolicy,
    method: str,
    path: str,
    body: object = None,
    extra: float = 0.0,
) -> Steps:
    """Asks the rest of the API, and gives the document that it answers."""
    lines = httpx.Headers(headers)
    lines["accept"] = "application/json"
    content = b""
    if body is not None:
        lines["content-type"] = "application/json"
        content = json.dumps(body, separators=(",", ":")).encode()
    request = Prepared(method, base + path, lines, content, None)
    answer: Answer = yield from answer_of(request, policy, extra)
    return answer.json()


def operation_path(operation: str) -> str:
    """Where an operation is looked at."""
    return f"/v1/operations/{quote(operation, safe='')}"


def wait_for(
    base: str, headers: httpx.Headers, policy: RetryPolicy, operation: str, timeout: float
) -> Steps:
    """Waits until an operation has ended."""
    end = time.monotonic() + timeout
    look = _LOOK
    while True:
        said = yield from ask(base, headers, policy, "GET", operation_path(operation))
        story = cast(OperationStory, said)
        if story["state"] in ("done", "dead"):
            return story
        looks = story["looks"]
        # Where the upstream is asked what it knows, the doubt may end by itself.
        if story["state"] == "in_doubt" and (looks is None or looks["next"] is None):
            raise _in_doubt(story["id"], story["key"])
        left = end - time.monotonic()
        if left <= 0:
            raise WaitTimeoutError(f"{operation} is {story['state']} still")
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
