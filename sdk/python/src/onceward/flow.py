"""When a call is made again, without any I/O: flows ask and pause, whoever drives them does.

A flow is a generator. It yields what is to be done, and is sent what came of it, so that the
blocking client, the asynchronous one and every hook have one way to retry.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Protocol, TypeVar

from .errors import UnreachableError
from .request import Prepared

#: What a call is given at least, in seconds, so that it has a chance.
_MOMENT = 0.01

#: The statuses that whatever stands between us and the gateway says of itself.
_BETWEEN = (429, 502, 503, 504)


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how long a call is made again. All of it with one key; times in seconds."""

    #: Calls, the first one counted.
    attempts_max: int = 5
    #: No further call begins later than this after the first one.
    horizon: float = 120.0
    #: The first pause; each further one is twice as long, up to half of it left to chance.
    base: float = 0.2
    #: The longest pause that this side chooses.
    cap: float = 5.0
    #: How long an answer may take. The gateway answers within a minute if nothing else is said.
    timeout: float = 75.0


class Got(Protocol):
    """What is looked at of an answer."""

    @property
    def status_code(self) -> int:
        """Its status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers; names in any case."""


@dataclass(frozen=True)
class Ask:
    """Make this call."""

    request: Prepared
    #: How long an answer may take, in seconds.
    timeout: float


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds."""

    seconds: float


class NoAnswerError(Exception):
    """Thrown into a flow where no answer came."""


T = TypeVar("T")
G = TypeVar("G", bound=Got)
Flow = Generator[Ask | Pause, G | None, T]


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """What is asked for in `Retry-After`, in seconds from now: seconds, or a date."""
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}", text):
        return float(text)
    try:
        at = parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
    return max(0.0, at - (time.time() if now is None else now))


def is_foreign(answer: Got) -> bool:
    """Whether an answer may be of a proxy before the gateway, which knows nothing of the call.

    Every keyed answer of the gateway's names its operation.
    """
    ours = ("onceward-advice", "onceward-operation")
    return answer.status_code in _BETWEEN and not any(name in answer.headers for name in ours)


def may_help(answer: Got, is_safe: bool) -> bool:
    """Whether the same call may bring more than this answer."""
    advice = answer.headers.get("onceward-advice")
    if advice is not None:
        return answer.status_code >= 400 and advice in ("same-key", "wait")
    return is_safe and is_foreign(answer)


def retrying(
    request: Prepared,
    policy: RetryPolicy,
    *,
    is_repeatable: bool = True,
    is_safe: bool | None = None,
    extra: float = 0.0,
    until: float = math.inf,
) -> Generator[Ask | Pause, G | None, G]:
    """Makes a call until its answer cannot get better by making it again.

    `is_safe`: a second arrival changes nothing, as of what has a key. `until`: by the clock that
    only goes on, nothing of it is waited for any longer.
    """
    safe = request.key is not None if is_safe is None else is_safe
    end = min(time.monotonic() + policy.horizon, until)
    attempt = 0
    while True:
        attempt += 1
        answer: G | None = None
        failure: Exception | None = None
        try:
            left = max(_MOMENT, until - time.monotonic())
            answer = yield Ask(request, min(policy.timeout + extra, left))
        except NoAnswerError as error:
            failure = error
        if answer is not None and not may_help(answer, safe):
            return answer
        # Chance keeps many callers apart; nothing of it is a secret.
        drawn = min(policy.cap, policy.base * 2 ** (attempt - 1)) * random.uniform(0.5, 1)  # noqa: S311
        wait = max(drawn, (answer is not None and retry_after(answer.headers)) or 0.0)
        is_late = attempt >= policy.attempts_max or time.monotonic() + wait > end
        if is_late or (answer is None and not is_repeatable):
            if answer is not None:
                return answer
            cause = failure.__cause__ if failure is not None else None
            said = f"no answer came: {failure or cause!r}"
            raise UnreachableError(said, request.key) from cause
        yield Pause(wait)
