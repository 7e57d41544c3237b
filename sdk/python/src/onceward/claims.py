"""Claims: the ledger as a service for handlers, consumers and jobs of one's own."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import quote

from .errors import (
    AnswerUnreadableError,
    EffectFailedError,
    FenceStaleError,
    InProgressError,
    NotDoneError,
    OncewardError,
    OutcomeUnknownError,
    ProblemError,
    RefusedError,
    UnreachableError,
    UnwrittenError,
    problem,
)
from .flow import Ask, Pause
from .keys import new_key
from .shapes import Claim, Effects
from .units import duration

if TYPE_CHECKING:
    from ._calls import Read, Steps
    from .answer import Answer
    from .client import AsyncOnceward, Onceward, _Client

#: What the gateway waits for somebody else's outcome in one request, at most, in seconds.
_WAIT_MAX = 60.0

#: Renewals come no closer together than this, whatever the lease, in seconds.
_PAUSE_MIN = 0.05

#: No lease is counted as longer, in this process, in seconds.
_LEASE_MAX = 86_400.0

#: How a claim stands where a word of it was heard.
_HEARD = {"complete": ("done",), "release": ("released", "in_doubt"), "renew": ("acquired",)}

_NO_CLAIM = "the answer cannot be read: it is not the claim that was asked for"

T = TypeVar("T")


@dataclass
class Held:
    """What an effect is told."""

    key: str
    #: Grows with each holder: let what is written to refuse a smaller one.
    fence: int
    #: The operation's id: a good key for what is called from here.
    operation: str
    #: Until when it is in hand, by this process's clock that only goes on.
    _until: float = field(default=math.inf, compare=False, repr=False)
    #: For how long it was granted last, in seconds.
    _lease: float = field(default=_LEASE_MAX, compare=False, repr=False)
    _lost: OncewardError | None = field(default=None, compare=False, repr=False)

    @property
    def lost(self) -> OncewardError | None:
        """Why the claim is lost, where it is: somebody else may have begun since.

        It is too where its lease is over and no renewal was heard.
        """
        if self._lost is None and time.monotonic() >= self._until:
            self._lost = OncewardError(f"the lease of {self.key} is over, and was not renewed")
        return self._lost


@dataclass(frozen=True)
class Granted:
    """A claim, and for how long it is in hand from its asking on, in seconds.

    Its lease began when the gateway wrote it, which no answer tells: no earlier than it was asked.
    """

    claim: Claim
    lease: float
    #: When it was asked first, by this process's clock that only goes on.
    asked: float


class _Verbs:
    """What there is to say of claims, as flows."""

    def __init__(
        self,
        client: _Client,
        scope: str,
        lease: float,
        effects: Effects | None,
        holder: str | None,
    ) -> None:
        self._client = client
        #: Within what keys are unique.
        self.scope = scope
        self.lease = lease
        self._effects = effects
        self._holder = holder

    def _path(self, key: str) -> str:
        return f"/v1/claims/{quote(self.scope, safe='')}/{quote(key, safe='')}"

    def _say(
        self,
        key: str,
        verb: str,
        words: dict[str, Any],
        extra: float = 0.0,
        until: float = math.inf,
    ) -> Generator[Ask | Pause, Read | None, Granted]:
        asked = time.monotonic()
        said = {name: value for name, value in words.items() if value is not None}
        # A nonce or a fence tells a second arrival.
        path = f"{self._path(key)}/{verb}"
        answer, claim = yield from self._client._post(path, said, extra, until)
        status = claim.get("status")
        if claim.get("key") != key or status is None:
            raise AnswerUnreadableError(_NO_CLAIM)
        if verb in _HEARD and status not in _HEARD[verb]:
            raise AnswerUnreadableError(f"the answer cannot be read: the claim is {status}")
        return Granted(claim, granted(claim, answer, self.lease), asked)

    def _begin(
        self, key: str, fingerprint: object, effects: Effects | None, nonce: str | None, wait: float
    ) -> Generator[Ask | Pause, Read | None, Granted]:
        """Begins an effect; a begin that is sent again because its answer was lost is the same."""
        wait = max(0.0, min(wait, _WAIT_MAX))
        words = {
            "lease": duration(self.lease),
            "fingerprint": fingerprint,
            "effects": effects or self._effects,
            "holder": self._holder,
            "nonce": nonce or new_key(),
            "wait": duration(wait) if wait else None,
        }
        return (yield from self._say(key, "begin", words, extra=wait))

    def _take(
        self, key: str, fingerprint: object, effects: Effects | None, wait: float
    ) -> Generator[Ask | Pause, Read | None, Granted]:
        """Begins an effect that is to run here, with most of its lease before it.

        An answer that was long on its way says little of what is left of the lease. It is renewed
        before anything runs, and given back where that cannot be.
        """
        begun = yield from self._begin(key, fingerprint, effects, None, wait)
        is_late = time.monotonic() - begun.asked > begun.lease / 3
        if begun.claim["status"] != "acquired" or not is_late:
            return begun
        fence = begun.claim.get("fence", 0)
        try:
            renewed = yield from self._renew(key, fence, None)
        except OncewardError as error:
            with suppress(OncewardError):
                yield from self._release(key, fence, "it was begun too late", None, False)
            if isinstance(error, FenceStaleError):
                said = f"the begin of {key} took longer than its lease; nothing was done"
                raise UnreachableError(said, key) from error
            raise
        return replace(begun, lease=renewed.lease, asked=renewed.asked)

    def _complete(self, key: str, fence: int, outcome: object, ok: bool | None) -> Steps:
        words = {"fence": fence, "outcome": outcome, "ok": ok}
        return (yield from self._say(key, "complete", words)).claim

    def _release(
        self,
        key: str,
        fence: int,
        reason: str | None,
        retry_after: float | None,
        may_have_executed: bool,
    ) -> Steps:
        words = {
            "fence": fence,
            "reason": None if reason is None else reason[:256],
            "retry_after": None if retry_after is None else duration(retry_after),
            "may_have_executed": may_have_executed or None,
        }
        return (yield from self._say(key, "release", words)).claim

    def _renew(
        self, key: str, fence: int, lease: float | None, until: float = math.inf
    ) -> Generator[Ask | Pause, Read | None, Granted]:
        words = {"fence": fence, "lease": duration(self.lease if lease is None else lease)}
        return (yield from self._say(key, "renew", words, until=until))

    def _keep(self, held: Held) -> Generator[Ask | Pause, Read | None, bool]:
        """Renews a claim once; whether it is to be renewed again."""
        try:
            # A renewal that hangs is worth no more than the lease that it is to renew.
            renewed = yield from self._renew(held.key, held.fence, None, held._until)
        except OncewardError as error:
            # Else it was asked several times over; the next third is another chance.
            if _is_final(error):
                held._lost = error
        else:
            if held.lost is None:
                held._lease, held._until = renewed.lease, renewed.asked + renewed.lease
        return held.lost is None

    def _end(self, held: Held, outcome: object) -> Steps:
        """Says that it was done. It stays in hand until that is heard: a gateway comes back."""
        try:
            return (yield from self._complete(held.key, held.fence, outcome, None))
        except (RefusedError, TypeError, ValueError):
            # No further try could write it. A lease that ends by itself says the same, later.
            with suppress(OncewardError):
                why = "its outcome cannot be written down"
                yield from self._release(held.key, held.fence, why, None, True)
            raise

    def _get(self, key: str) -> Steps:
        claim = yield from self._client._ask(self._path(key))
        if claim.get("key") != key:
            raise AnswerUnreadableError(_NO_CLAIM)
        return claim

    def _acquire(
        self, key: str, fingerprint: object, effects: Effects | None, wait: float
    ) -> Generator[Ask | Pause, Read | None, Granted]:
        """Begins a key that is in nobody's hand, or is done."""
        end = time.monotonic() + wait
        while True:
            left = max(0.0, end - time.monotonic())
            begun = yield from self._take(key, fingerprint, effects, left)
            claim = begun.claim
            if claim["status"] in ("acquired", "done"):
                return begun
            if claim["status"] == "in_doubt":
                raise claim_in_doubt(claim)
            retry_after = claim.get("retry_after_ms", 1000) / 1000
            if time.monotonic() + retry_after >= end:
                raise claim_busy(claim)
            yield Pause(retry_after)

    def _give_back(self, held: Held, error: BaseException) -> Steps:
        """Says that an effect ended in an error: nothing was done where the error says so."""
        if isinstance(error, NotDoneError):
            return self._release(held.key, held.fence, str(error), error.retry_after, False)
        # An error's words may hold what nobody should read there: its name has to do.
        return self._release(held.key, held.fence, type(error).__name__, None, True)


def outcome_of(claim: Claim) -> Any:
    """The outcome of a claim that is done; raises where it did not succeed."""
    if claim.get("ok") is False:
        raise EffectFailedError(claim["key"], claim.get("outcome"))
    return claim.get("outcome")


def granted(claim: Claim, answer: Answer, asked: float) -> float:
    """For how long a claim is in hand: what was asked, unless its answer says less.

    By the clock of whoever answered, which need not be ours; it says whole seconds, so that up to
    one of what it seems to say is over already.
    """
    asked = min(asked, _LEASE_MAX)
    try:
        until = datetime.fromisoformat(claim["lease_until"])
        said = (until - parsedate_to_datetime(answer.headers["date"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return asked
    return min(asked, max(said - 1.0, said / 2, 0.0))


def held_of(begun: Granted) -> Held:
    """What whoever has a claim in hand is told."""
    claim, until = begun.claim, begun.asked + begun.lease
    return Held(claim["key"], claim.get("fence", 0), claim["operation"], until, begun.lease)


def _is_final(error: OncewardError) -> bool:
    """Whether a claim that is refused so is not ours any more."""
    is_gone = isinstance(error, ProblemError) and error.status in (403, 404, 410)
    return is_gone or isinstance(error, FenceStaleError)


def _pause_of(held: Held) -> float:
    """How long until a claim is to be renewed: a third of its lease."""
    left = max(0.0, held._until - time.monotonic())
    return min(max(held._lease / 3, _PAUSE_MIN), left)


class Claims(_Verbs):
    """The claims of one scope."""

    _client: Onceward

    def begin(
        self,
        key: str,
        *,
        fingerprint: object = None,
        effects: Effects | None = None,
        nonce: str | None = None,
        wait: float = 0.0,
    ) -> Claim:
        """Begins an effect: `acquired` says that it is in hand, `done` that somebody did it.

        A begin that is sent again because its answer was lost is the same begin. `wait`, up to a
        minute: how many seconds somebody else's outcome is waited for.
        """
        steps = self._begin(key, fingerprint, effects, nonce, wait)
        return cast(Granted, self._client.run(steps)).claim

    def complete(
        self, key: str, fence: int, outcome: object = None, *, ok: bool | None = None
    ) -> Claim:
        """Says that it was done, and what all shall get; `ok=False` where it did not succeed."""
        return cast(Claim, self._client.run(self._complete(key, fence, outcome, ok)))

    def release(
        self,
        key: str,
        fence: int,
        *,
        reason: str | None = None,
        retry_after: float | None = None,
        may_have_executed: bool = False,
    ) -> Claim:
        """Gives it back: nothing was done, or, with `may_have_executed`, nobody knows."""
        steps = self._release(key, fence, reason, retry_after, may_have_executed)
        return cast(Claim, self._client.run(steps))

    def renew(self, key: str, fence: int, *, lease: float | None = None) -> Claim:
        """Keeps it in hand for another lease."""
        return cast(Granted, self._client.run(self._renew(key, fence, lease))).claim

    def get(self, key: str) -> Claim:
        """How it stands."""
        return cast(Claim, self._client.run(self._get(key)))

    def once(
        self,
        key: str,
        effect: Callable[[Held], T],
        *,
        fingerprint: object = None,
        effects: Effects | None = None,
        wait: float = _WAIT_MAX,
    ) -> T:
        """Runs `effect` unless somebody has, and gives its outcome, which is kept as JSON.

        Whoever comes while it runs waits, whoever comes later gets what was kept. Its lease is
        renewed meanwhile. An effect that raises may have been done, unless it raises a
        `NotDoneError`; what follows is what `effects` says.

        Raises `InProgressError` where somebody else has it in hand for longer than `wait`,
        `OutcomeUnknownError` where only a person can tell, `EffectFailedError` where it was done
        and did not succeed, and `UnwrittenError` where it ran and the ledger does not know its
        outcome.
        """
        begun = cast(Granted, self._client.run(self._acquire(key, fingerprint, effects, wait)))
        if begun.claim["status"] == "done":
            return cast(T, outcome_of(begun.claim))
        held = held_of(begun)
        over = threading.Event()
        renewing = threading.Thread(target=self._renewing, args=(held, over), daemon=True)
        renewing.start()
        try:
            outcome = effect(held)
        except BaseException as error:
            over.set()
            # A lease that ends by itself says the same, later; what went wrong first counts.
            with suppress(OncewardError):
                self._client.run(self._give_back(held, error))
            raise
        try:
            self._client.run(self._end(held, outcome))
        except FenceStaleError:
            raise
        except (OncewardError, TypeError, ValueError) as error:
            raise UnwrittenError(key, held.fence, error) from error
        finally:
            over.set()
        return outcome

    def _renewing(self, held: Held, over: threading.Event) -> None:
        while not over.wait(_pause_of(held)) and held.lost is None:
            if not self._client.run(self._keep(held)):
                return


class AsyncClaims(_Verbs):
    """The claims of one scope, for asyncio. What there is to say, `Claims` says."""

    _client: AsyncOnceward

    async def begin(
        self,
        key: str,
        *,
        fingerprint: object = None,
        effects: Effects | None = None,
        nonce: str | None = None,
        wait: float = 0.0,
    ) -> Claim:
        """Begins an effect, as `Claims.begin`."""
        steps = self._begin(key, fingerprint, effects, nonce, wait)
        return cast(Granted, await self._client.run(steps)).claim

    async def complete(
        self, key: str, fence: int, outcome: object = None, *, ok: bool | None = None
    ) -> Claim:
        """Says that it was done, as `Claims.complete`."""
        return cast(Claim, await self._client.run(self._complete(key, fence, outcome, ok)))

    async def release(
        self,
        key: str,
        fence: int,
        *,
        reason: str | None = None,
        retry_after: float | None = None,
        may_have_executed: bool = False,
    ) -> Claim:
        """Gives it back, as `Claims.release`."""
        steps = self._release(key, fence, reason, retry_after, may_have_executed)
        return cast(Claim, await self._client.run(steps))

    async def renew(self, key: str, fence: int, *, lease: float | None = None) -> Claim:
        """Keeps it in hand for another lease."""
        return cast(Granted, await self._client.run(self._renew(key, fence, lease))).claim

    async def get(self, key: str) -> Claim:
        """How it stands."""
        return cast(Claim, await self._client.run(self._get(key)))

    async def once(
        self,
        key: str,
        effect: Callable[[Held], Awaitable[T]],
        *,
        fingerprint: object = None,
        effects: Effects | None = None,
        wait: float = _WAIT_MAX,
    ) -> T:
        """Runs `effect` unless somebody has, and gives its outcome, as `Claims.once`."""
        steps = self._acquire(key, fingerprint, effects, wait)
        begun = cast(Granted, await self._client.run(steps))
        if begun.claim["status"] == "done":
            return cast(T, outcome_of(begun.claim))
        hold = Hold(self, begun)
        try:
            outcome = await effect(hold.held)
        except BaseException as error:
            await hold.give_back(error)
            raise
        try:
            await hold.end(outcome)
        except FenceStaleError:
            raise
        except (OncewardError, TypeError, ValueError) as error:
            raise UnwrittenError(key, hold.held.fence, error) from error
        finally:
            hold.stop()
        return outcome


class Hold:
    """A claim in hand of a task: renewed at a third of what was granted until it is stopped."""

    def __init__(self, claims: AsyncClaims, begun: Granted, longest: float = math.inf) -> None:
        self.held = held_of(begun)
        self._claims = claims
        #: From then on its lease ends by itself, whatever its holder does.
        self._last = time.monotonic() + longest
        self._task = asyncio.create_task(self._renewing())

    async def end(self, outcome: object) -> None:
        """Says that it was done."""
        await self._claims._client.run(self._claims._end(self.held, outcome))

    async def give_back(self, error: BaseException) -> None:
        """Says that an effect ended in an error: nothing was done where the error says so."""
        self.stop()
        # A lease that ends by itself says the same, later; what went wrong first counts.
        with suppress(OncewardError):
            await self._claims._client.run(self._claims._give_back(self.held, error))

    def stop(self) -> None:
        """Renews it no more."""
        self._task.cancel()

    async def _renewing(self) -> None:
        while self.held.lost is None and time.monotonic() < self._last:
            await asyncio.sleep(_pause_of(self.held))
            if not await self._claims._client.run(self._claims._keep(self.held)):
                return


def claim_busy(claim: Claim) -> InProgressError:
    """What a busy claim is to whoever asked for it."""
    title = "The first call with this key is under way"
    detail = "Somebody else has it in hand. Ask again with the same key to get its outcome."
    said = problem("in-progress", 409, "wait", title, detail)
    said["operation"] = claim["operation"]
    after = claim.get("retry_after_ms", 1000) / 1000
    return InProgressError(said, key=claim["key"], retry_after=after)


def claim_in_doubt(claim: Claim) -> OutcomeUnknownError:
    """What a claim in doubt is to whoever asked for it."""
    title = "Nobody knows whether it was done"
    detail = "It was begun, and nobody said how it ended. A person resolves it."
    said = problem("outcome-unknown", 409, "escalate", title, detail)
    said["operation"] = claim["operation"]
    return OutcomeUnknownError(said, key=claim["key"])
