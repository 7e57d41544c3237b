"""What only the double can: upstreams of a test's own, and ends that a test decides."""

from __future__ import annotations

import httpx
import pytest
from conftest import RETRY

from onceward import Onceward, OutcomeUnknownError, UnavailableError
from onceward.testing import FakeGateway, FakeRoute, UnsentError

_SCRIPT = "demo-unsafe/orders?script=drop,201"


@pytest.fixture
def double() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
def once(double: FakeGateway) -> Onceward:
    return Onceward(transport=double.transport, retry=RETRY)


def in_doubt(once: Onceward) -> str:
    with pytest.raises(OutcomeUnknownError) as told:
        once.send(_SCRIPT, key="k")
    return told.value.operation or ""


def test_a_doubt_that_is_resolved_as_done_is_answered_so_from_then_on(
    double: FakeGateway, once: Onceward
) -> None:
    double.resolve(in_doubt(once), "done", status=201, body=b"in the books")
    answer = once.send(_SCRIPT, key="k")
    assert (answer.status, answer.text, answer.replayed) == (201, "in the books", True)


def test_a_doubt_that_is_resolved_as_not_sent_lets_the_same_key_run(
    double: FakeGateway, once: Onceward
) -> None:
    double.resolve(in_doubt(once), "not-sent")
    answer = once.send(_SCRIPT, key="k")
    assert (answer.status, answer.replayed, answer.attempts) == (201, False, 2)
    with pytest.raises(ValueError, match="not in doubt"):
        double.resolve(answer.operation or "", "done")


def test_an_upstream_that_was_not_reached_has_done_nothing_whatever_its_effects() -> None:
    troubles = [UnsentError("connection refused")] * 6

    def bank(_: httpx.Request) -> httpx.Response:
        if troubles:
            raise troubles.pop()
        return httpx.Response(200, text="done")

    once = Onceward(transport=FakeGateway({"bank": FakeRoute(bank)}).transport, retry=RETRY)
    with pytest.raises(UnavailableError):
        once.send("bank/payments", key="k")
    assert once.send("bank/payments", key="k").text == "done"


def test_a_lease_that_ends_leaves_a_doubt_or_a_key_that_is_free_where_that_is_harmless(
    double: FakeGateway, once: Onceward
) -> None:
    claims = once.claims("mails")
    claims.begin("a")
    double.lapse("mails", "a")
    assert claims.begin("a")["status"] == "in_doubt"
    first = claims.begin("b", effects="idempotent")
    double.lapse("mails", "b")
    second = claims.begin("b")
    assert second["status"] == "acquired"
    assert second["fence"] > first["fence"]
    with pytest.raises(ValueError, match="in nobody's hand"):
        double.lapse("mails", "a")
