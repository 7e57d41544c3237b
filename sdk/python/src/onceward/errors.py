"""What goes wrong, typed by what is left to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from .shapes import Advice, Problem, ProblemCode

if TYPE_CHECKING:
    from .answer import Answer

_TYPE = "urn:onceward:problem:"


class OncewardError(Exception):
    """Whatever this package raises by itself."""

    #: What is left to do.
    advice: Advice = "escalate"


class UnreachableError(OncewardError):
    """No answer of the gateway's came. The same call with the same key is safe."""

    advice: Advice = "same-key"

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        #: The key that the call was made with: make it again with that one.
        self.key = key


class AnswerTooLargeError(OncewardError):
    """An answer is larger than what is read of one; the call itself was made."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        #: The key that the call was made with: its outcome lies under that one.
        self.key = key


class AnswerUnreadableError(OncewardError):
    """An answer is none of the API's: another server's, perhaps.

    What it was asked may have been done.
    """


class WaitTimeoutError(OncewardError):
    """What was waited for did not come in time; it goes on by itself."""

    advice: Advice = "wait"


class ProblemError(OncewardError):
    """A refusal (RFC 9457). Which subclass it is, its code says."""

    def __init__(
        self,
        problem: Problem,
        *,
        key: str | None = None,
        retry_after: float | None = None,
        answer: Answer | None = None,
    ) -> None:
        super().__init__(f"{problem['code']}: {problem['title']}. {problem['detail']}")
        #: The document as it came.
        self.problem = problem
        #: The idempotency key of the call, where it had one.
        self.key = key
        #: When the gateway asks to be asked again, in seconds from now.
        self.retry_after = retry_after
        #: The upstream's answer that left it open, where one came.
        self.answer = answer
        self.advice = problem["advice"]

    @property
    def code(self) -> ProblemCode:
        """What happened, as a word that stays."""
        return self.problem["code"]

    @property
    def status(self) -> int:
        """The status of its answer."""
        return self.problem["status"]

    @property
    def operation(self) -> str | None:
        """The operation that it is about."""
        return self.problem.get("operation")


class OutcomeUnknownError(ProblemError):
    """It was sent, and nobody knows whether it was done. Never send it again under a new key."""


class InProgressError(ProblemError):
    """The first call with this key is under way."""


class KeyMismatchError(ProblemError):
    """The key was used for another request; `problem["differs"]` says where."""


class KeyExpiredError(ProblemError):
    """The key was used once and opens nothing more: its window is over, or a person ended it."""


class ResponseNotRetainedError(ProblemError):
    """It was done, and its answer is not kept."""


class FenceStaleError(ProblemError):
    """Of a claim: somebody else has it in hand by now. Nothing was changed."""


class UnavailableError(ProblemError):
    """Not now: nothing has gone wrong for good, and the same key may be sent again."""


class RefusedError(ProblemError):
    """The request has to be another one. Nothing was sent."""


_BY_CODE: dict[str, type[ProblemError]] = {
    "outcome-unknown": OutcomeUnknownError,
    "in-progress": InProgressError,
    "still-working": InProgressError,
    "key-mismatch": KeyMismatchError,
    "key-expired": KeyExpiredError,
    "key-invalidated": KeyExpiredError,
    "cancelled": KeyExpiredError,
    "response-not-retained": ResponseNotRetainedError,
    "fence-stale": FenceStaleError,
}

_BY_ADVICE: dict[str, type[ProblemError]] = {
    "same-key": UnavailableError,
    "fix-request": RefusedError,
}


def kind_of(problem: Problem) -> type[ProblemError]:
    """The error for a problem: by its code, else by its advice, so that later codes fit too."""
    by_advice = _BY_ADVICE.get(problem["advice"], ProblemError)
    return _BY_CODE.get(problem["code"], by_advice)


def problem_in(document: object) -> Problem | None:
    """The problem in a document, if it is one of ours."""
    if not isinstance(document, dict) or not str(document.get("type")).startswith(_TYPE):
        return None
    return cast(Problem, document) if {"code", "advice"} <= document.keys() else None


def problem(code: ProblemCode, status: int, advice: Advice, title: str, detail: str) -> Problem:
    """A problem that this side says."""
    return {
        "type": _TYPE + code,
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "advice": advice,
    }


class EffectFailedError(OncewardError):
    """It was done, and did not succeed: that is its outcome, and all get it."""

    advice: Advice = "new-key"

    def __init__(self, key: str, outcome: object) -> None:
        super().__init__(f"{key} has ended, and did not succeed")
        #: As it was completed.
        self.outcome = outcome


class UnwrittenError(OncewardError):
    """The effect of a claim ran, and no answer says that its outcome is written.

    The cause says why. It is in doubt once its lease is over, or free to be begun anew where that
    is harmless, or done where the answer alone was lost. A `complete` with this fence is believed
    until somebody has begun it since, or a person has decided.
    """

    def __init__(self, key: str, fence: int, cause: BaseException) -> None:
        super().__init__(f"the effect of {key} ran, and its outcome is not written down: {cause}")
        #: The claim's key.
        self.key = key
        #: The fence that it was run under.
        self.fence = fence


class NotDoneError(OncewardError):
    """Raised by an effect that knows that nothing was done: the key is free again."""

    advice: Advice = "same-key"

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        #: How long nobody shall begin it, in seconds.
        self.retry_after = retry_after
