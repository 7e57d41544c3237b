"""Calls that are safe to retry.

from onceward import Onceward

onceward = Onceward()
answer = onceward.send("demo/orders", key="order-1", body={"qty": 1})
"""

from .answer import Answer
from .asgi import Keyed, OnceMiddleware
from .claims import AsyncClaims, Claims, Held
from .client import Accepted, AsyncOnceward, Onceward
from .errors import (
    AnswerTooLargeError,
    AnswerUnreadableError,
    EffectFailedError,
    FenceStaleError,
    InProgressError,
    KeyExpiredError,
    KeyMismatchError,
    NotDoneError,
    OncewardError,
    OutcomeUnknownError,
    ProblemError,
    RefusedError,
    ResponseNotRetainedError,
    UnavailableError,
    UnreachableError,
    UnwrittenError,
    WaitTimeoutError,
)
from .flow import RetryPolicy
from .keys import new_key
from .request import Options
from .transport import AsyncOnceTransport, OnceTransport
from .version import VERSION
from .webhooks import Verified, WebhookRejectedError, verify_webhook

__all__ = [
    "VERSION",
    "Accepted",
    "Answer",
    "AnswerTooLargeError",
    "AnswerUnreadableError",
    "AsyncClaims",
    "AsyncOnceTransport",
    "AsyncOnceward",
    "Claims",
    "EffectFailedError",
    "FenceStaleError",
    "Held",
    "InProgressError",
    "KeyExpiredError",
    "KeyMismatchError",
    "Keyed",
    "NotDoneError",
    "OnceMiddleware",
    "OnceTransport",
    "Onceward",
    "OncewardError",
    "Options",
    "OutcomeUnknownError",
    "ProblemError",
    "RefusedError",
    "ResponseNotRetainedError",
    "RetryPolicy",
    "UnavailableError",
    "UnreachableError",
    "UnwrittenError",
    "Verified",
    "WaitTimeoutError",
    "WebhookRejectedError",
    "new_key",
    "verify_webhook",
]
