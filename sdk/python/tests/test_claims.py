"""How long a claim is in hand, and what an effect is told whose words are not heard."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from typing import cast

import httpx
import pytest
from scripted import QUICK, Saying, Scripted, claim, refusal

from onceward import (
    Answer,
    AsyncOnceward,
    FenceStaleError,
    Held,
    Onceward,
    ProblemError,
    UnreachableError,
    UnwrittenError,
)
from onceward.claims import granted
from onceward.shapes import Claim

#: Longer than anything here takes: who waits for so long waits for nothing.
_LATE = 30.0


def often(count: int) -> tuple[Saying, threading.Event]:
    """A gateway that grants little, and when it has been asked for more so often."""
    heard, renewals = threading.Event(), []

    def answer(verb: str) -> httpx.Response:
        if verb == "renew":
            renewals.append(verb)
            if len(renewals) == count:
                heard.set()
        return claim("done") if verb == "complete" else claim("acquired", 0.6)

    return Saying(answer), heard


def asked_for(gateway: Saying, verb: str) -> list[object]:
    return [json.loads(it.content) for it in gateway.asked if it.url.path.endswith(verb)]


def test_a_lease_is_renewed_by_what_was_granted_and_not_by_what_was_asked() -> None:
    gateway, heard = often(4)

    def effect(held: Held) -> None:
        assert heard.wait(_LATE)
        assert held.lost is None

    gateway.client().claims("mails", lease=3 * 3600).once("a", effect)
    assert asked_for(gateway, "/renew")[0] == {"fence": 7, "lease": "3h"}


def test_so_it_is_of_a_task() -> None:
    gateway, heard = often(4)

    async def effect(held: Held) -> None:
        assert await asyncio.to_thread(heard.wait, _LATE)
        assert held.lost is None

    async def main() -> None:
        async with gateway.tasks() as once:
            await once.claims("mails", lease=3 * 3600).once("a", effect)

    asyncio.run(main())


def away() -> httpx.Response:
    raise httpx.ReadTimeout("no way")


LOST: list[tuple[Callable[[], httpx.Response], str]] = [
    (away, "is over"),
    (lambda: refusal(401, "fix-request", "unauthenticated"), "is over"),
    (lambda: refusal(404, "fix-request", "not-found"), "not-found"),
    (lambda: refusal(409, "escalate", "fence-stale"), "fence-stale"),
]


def losing(said: Callable[[], httpx.Response]) -> Saying:
    def answer(verb: str) -> httpx.Response:
        if verb == "renew":
            return said()
        return claim("done" if verb == "complete" else "acquired")

    return Saying(answer)


@pytest.mark.parametrize(("said", "why"), LOST)
def test_a_claim_is_lost_with_its_lease_and_at_once_where_the_gateway_says_so(
    said: Callable[[], httpx.Response], why: str
) -> None:
    def effect(held: Held) -> str:
        end = threading.Event()
        while held.lost is None:
            end.wait(0.001)
        return str(held.lost)

    assert why in losing(said).client().claims("mails", lease=0.2).once("a", effect)


@pytest.mark.parametrize(("said", "why"), LOST)
def test_so_it_is_lost_to_a_task(said: Callable[[], httpx.Response], why: str) -> None:
    async def effect(held: Held) -> str:
        while held.lost is None:
            await asyncio.sleep(0.001)
        return str(held.lost)

    async def main() -> str:
        async with losing(said).tasks() as once:
            return await once.claims("mails", lease=0.2).once("a", effect)

    assert why in asyncio.run(main())


def once_of(transport: httpx.MockTransport, is_async: bool, outcome: object) -> None:
    """Has an effect that ends so run once, by either client."""
    if not is_async:
        Onceward(transport=transport, retry=QUICK).claims("mails").once("a", lambda _: outcome)
        return

    async def effect(_: Held) -> object:
        return outcome

    async def main() -> None:
        async with AsyncOnceward(transport=transport, retry=QUICK) as once:
            await once.claims("mails").once("a", effect)

    asyncio.run(main())


@pytest.mark.parametrize("is_async", [False, True])
def test_an_effect_that_ran_and_was_not_written_down_is_told_as_that(is_async: bool) -> None:
    gateway = Scripted(claim("acquired"), httpx.Response(500, json={"message": "no"}))
    with pytest.raises(UnwrittenError, match="has the status 500") as told:
        once_of(gateway.transport, is_async, 1)
    assert (told.value.key, told.value.fence, told.value.advice) == ("a", 7, "escalate")
    assert told.value.__cause__ is not None


@pytest.mark.parametrize("is_async", [False, True])
def test_what_the_ledger_will_never_take_leaves_a_doubt_at_once(is_async: bool) -> None:
    too_large = refusal(413, "fix-request", "body-too-large")
    gateway = Scripted(claim("acquired"), too_large, claim("in_doubt"))
    with pytest.raises(UnwrittenError) as told:
        once_of(gateway.transport, is_async, 1)
    assert isinstance(told.value.__cause__, ProblemError)
    assert json.loads(gateway.asked[2].content)["may_have_executed"] is True
    gateway = Scripted(claim("acquired"), claim("in_doubt"))
    with pytest.raises(UnwrittenError) as told:
        once_of(gateway.transport, is_async, {1, 2})
    assert isinstance(told.value.__cause__, TypeError)
    assert json.loads(gateway.asked[1].content)["may_have_executed"] is True


@pytest.mark.parametrize("is_async", [False, True])
def test_an_outcome_that_comes_after_somebody_else_has_begun_is_refused_as_that(
    is_async: bool,
) -> None:
    gateway = Scripted(claim("acquired"), refusal(409, "escalate", "fence-stale"))
    with pytest.raises(FenceStaleError):
        once_of(gateway.transport, is_async, 1)


class Clock:
    """A clock that goes on as a test says, beside the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0
        monkeypatch.setattr("onceward.claims.time", self)

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead


def slow(clock: Clock, seconds: float, renewal: httpx.Response | None = None) -> Saying:
    """A gateway whose answer to a begin is so long on its way."""

    def answer(verb: str) -> httpx.Response:
        if verb == "begin":
            clock.ahead += seconds
        if verb == "renew" and renewal is not None:
            return renewal
        return claim({"complete": "done", "release": "released"}.get(verb, "acquired"), 30.0)

    return Saying(answer)


def run_by(gateway: Saying, is_async: bool, effect: Callable[[Held], None]) -> None:
    """Has an effect run once, by either client, with a lease of half a minute."""
    if not is_async:
        gateway.client().claims("mails", lease=30.0).once("a", effect)
        return

    async def of_task(held: Held) -> None:
        effect(held)

    async def main() -> None:
        async with gateway.tasks() as once:
            await once.claims("mails", lease=30.0).once("a", of_task)

    asyncio.run(main())


def verbs(gateway: Saying) -> list[str]:
    return [it.url.path.rsplit("/", 1)[-1] for it in gateway.asked]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_lease_is_counted_from_its_asking_and_not_from_its_answer(
    is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    gateway, seen = slow(clock, 9.0), []

    def effect(held: Held) -> None:
        seen.append(held.lost)
        clock.ahead += 22.0
        seen.append(held.lost)

    run_by(gateway, is_async, effect)
    assert seen[0] is None
    assert "is over" in str(seen[1])
    assert verbs(gateway) == ["begin", "complete"]


@pytest.mark.parametrize("is_async", [False, True])
def test_what_was_begun_late_is_renewed_before_anything_runs(
    is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    gateway, seen = slow(clock, 25.0), []

    def effect(held: Held) -> None:
        seen.append((verbs(gateway), held.lost))

    run_by(gateway, is_async, effect)
    assert seen == [(["begin", "renew"], None)]


@pytest.mark.parametrize("is_async", [False, True])
def test_what_was_begun_too_late_is_given_back_and_does_not_run(
    is_async: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = slow(Clock(monkeypatch), 40.0, refusal(409, "escalate", "fence-stale"))
    with pytest.raises(UnreachableError, match="nothing was done") as told:
        run_by(gateway, is_async, lambda _: pytest.fail("it ran"))
    assert (told.value.key, told.value.advice) == ("a", "same-key")
    assert verbs(gateway) == ["begin", "renew", "release"]
    assert "may_have_executed" not in json.loads(gateway.asked[2].content)


def test_no_lease_is_counted_as_longer_than_an_answer_can_mean() -> None:
    # Its `Date` is cut to the second: what was granted may be 29.2 seconds.
    answer = Answer(200, httpx.Headers({"date": "Thu, 01 Jan 2026 00:00:00 GMT"}), b"", None)
    until = {"lease_until": "2026-01-01T00:00:30.100Z"}
    assert granted(cast(Claim, until), answer, 30.0) <= 29.2
