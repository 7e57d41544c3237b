"""The gateway is killed while it is used: nothing is lost, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from world import Gateway, fresh

from onceward import Held, Onceward, RetryPolicy


@pytest.fixture
def mortal() -> Iterator[Gateway]:
    gateway = Gateway()
    yield gateway
    gateway.stop()


@pytest.fixture
def once(mortal: Gateway) -> Iterator[Onceward]:
    retry = RetryPolicy(attempts_max=10_000, base=0.005, cap=0.02)
    with Onceward(mortal.url, retry=retry) as client:
        yield client


def test_a_call_that_meets_no_gateway_is_made_with_its_key_until_there_is_one(
    mortal: Gateway, once: Onceward
) -> None:
    key = fresh("order")
    first = once.send("demo/orders", key=key, body={"qty": 1})
    mortal.kill()
    with ThreadPoolExecutor() as threads:
        again = threads.submit(once.send, "demo/orders", key=key, body={"qty": 1})
        other = threads.submit(once.send, "demo/orders", body={"qty": 2})
        mortal.start_again()
    assert again.result().replayed
    assert again.result().content == first.content
    assert other.result().status == 201
    assert once.operation(other.result().operation or "")["key"] == other.result().key


def test_an_effect_whose_gateway_dies_meanwhile_is_run_once_and_all_get_its_outcome(
    mortal: Gateway, once: Onceward
) -> None:
    mails, key = once.claims("mails"), fresh("welcome")
    runs = []
    with ThreadPoolExecutor() as threads:

        def effect(held: Held) -> dict[str, int]:
            runs.append(held.fence)
            mortal.kill()
            # What is said next is said into the dark, until somebody hears it.
            threads.submit(mortal.start_again)
            return {"mail": len(runs)}

        assert mails.once(key, effect) == {"mail": 1}
        assert mails.once(key, effect) == {"mail": 1}
    assert len(runs) == 1


def test_an_accepted_call_goes_on_after_a_kill(mortal: Gateway, once: Onceward) -> None:
    accepted = once.accept("demo/orders", key=fresh("order"), body="a")
    mortal.kill()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(once.wait, accepted.operation)
        mortal.start_again()
    assert waiting.result()["state"] == "done"
