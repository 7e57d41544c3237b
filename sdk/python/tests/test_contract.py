"""What holds of the gateway holds of its double, and of both clients: the same tests for all."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import RETRY, OfTasks
from world import fresh

from onceward import (
    EffectFailedError,
    FenceStaleError,
    Held,
    InProgressError,
    KeyMismatchError,
    NotDoneError,
    Onceward,
    OutcomeUnknownError,
    ProblemError,
    RefusedError,
    UnreachableError,
    UnwrittenError,
)

Client = Onceward | OfTasks


def charged(once: Client) -> int:
    return int(once.send("demo/effects", method="GET").json()["count"])


def test_a_call_is_answered_by_its_upstream_and_its_repeat_from_memory(once: Client) -> None:
    key = fresh("order")
    first = once.send("demo/orders", key=key, body={"qty": 1})
    assert (first.status, first.ok, first.state, first.replayed) == (201, True, "done", False)
    second = once.send("demo/orders", key=key, body={"qty": 1})
    assert second.replayed
    assert second.operation == first.operation
    assert second.content == first.content
    assert second.headers["content-type"] == first.headers["content-type"]


def test_attempts_that_fail_and_lose_their_answer_come_to_one_effect(once: Client) -> None:
    earlier = charged(once)
    answer = once.send("demo/orders?script=503,drop,201", key=fresh("order"), body="a")
    assert (answer.status, answer.attempts) == (201, 3)
    assert charged(once) == earlier + 1


def test_a_call_without_a_key_gets_one_and_a_call_that_only_reads_does_not(once: Client) -> None:
    written = once.send("demo", "/orders", body="a")
    assert written.key is not None
    assert written.headers["idempotency-key"] == written.key
    read = once.send("demo", "/effects", method="GET")
    assert read.key is None
    assert read.operation is None


def test_the_same_key_with_another_request_is_refused_and_says_where_it_differs(
    once: Client,
) -> None:
    key = fresh("order")
    once.send("demo/orders", key=key, body="a")
    with pytest.raises(KeyMismatchError) as told:
        once.send("demo/orders", key=key, body="b")
    assert told.value.code == "key-mismatch"
    assert told.value.advice == "new-key"
    assert told.value.problem["differs"] == ["body"]
    assert told.value.key == key


def test_what_lost_its_answer_is_in_doubt_where_a_second_arrival_is_a_second_effect(
    once: Client,
) -> None:
    key = fresh("order")
    for status in (504, 409):
        with pytest.raises(OutcomeUnknownError) as told:
            once.send("demo-unsafe/orders?script=drop", key=key, body="a")
        assert told.value.status == status
        assert told.value.advice == "escalate"
        assert (told.value.operation or "").startswith("op_")


def test_an_ambiguous_answer_of_the_upstreams_own_is_in_doubt_too(once: Client) -> None:
    with pytest.raises(OutcomeUnknownError) as told:
        once.send("demo-unsafe/orders?script=500", key=fresh("order"), body="a")
    assert told.value.answer is not None
    assert told.value.answer.status == 500


def test_a_refusal_of_the_upstreams_is_its_answer_and_is_kept(once: Client) -> None:
    key = fresh("order")
    first = once.send("demo/orders?script=404", key=key, body="a")
    assert (first.status, first.ok) == (404, False)
    assert once.send("demo/orders?script=404", key=key, body="a").replayed


def test_what_can_be_tried_again_is_with_the_same_key_under_the_same_operation(
    once: Client,
) -> None:
    script = ",".join(["503"] * 5 + ["201"])
    answer = once.send(f"demo/orders?script={script}", key=fresh("order"), body="a")
    assert (answer.status, answer.attempts) == (201, 6)


def test_a_call_that_is_accepted_goes_on_by_itself(once: Client) -> None:
    key = fresh("order")
    accepted = once.accept("demo/orders", key=key, body={"qty": 1})
    assert accepted.key == key
    story = once.wait(accepted.operation)
    assert (story["state"], story["ok"], story["key"]) == ("done", True, key)
    assert once.response(accepted.operation)["status"] == 201
    again = once.accept("demo/orders", key=key, body={"qty": 1})
    assert again.answer is not None
    assert again.answer.replayed
    assert again.operation == accepted.operation


def test_an_accepted_call_that_is_refused_is_a_dead_letter_with_its_outcome(once: Client) -> None:
    accepted = once.accept("demo/orders?script=404", key=fresh("order"), body="a")
    story = once.wait(accepted.operation)
    assert (story["state"], story["ok"], story["told"]) == ("dead", False, False)
    assert story["outcome"] is not None
    assert story["outcome"]["status"] == 404


def test_waiting_for_what_is_in_doubt_says_so(once: Client) -> None:
    accepted = once.accept("demo-unsafe/orders?script=drop", key=fresh("order"), body="a")
    with pytest.raises(OutcomeUnknownError):
        once.wait(accepted.operation)


def test_what_is_not_there_is_refused(once: Client) -> None:
    with pytest.raises(RefusedError) as told:
        once.send("nowhere/orders", body="a")
    assert told.value.code == "route-unknown"
    with pytest.raises(ProblemError) as told_of_it:
        once.operation("op_01kb2n9f5nep3b8m6wq6r9t2vx")
    assert told_of_it.value.code == "not-found"


def test_an_effect_is_run_once_and_all_get_its_outcome(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    runs = []

    def effect(held: Held) -> dict[str, int]:
        runs.append(held.fence)
        return {"mail": len(runs)}

    assert claims.once(key, effect) == {"mail": 1}
    assert claims.once(key, effect) == {"mail": 1}
    assert len(runs) == 1


def test_an_effect_that_says_that_nothing_was_done_frees_its_key(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")

    def busy(_: Held) -> None:
        raise NotDoneError("the mail server is busy")

    with pytest.raises(NotDoneError):
        claims.once(key, busy)
    assert claims.once(key, lambda _: "sent") == "sent"


def test_an_effect_that_raises_is_in_doubt_and_harmless_ones_run_again(once: Client) -> None:
    claims = once.claims("mails")

    def fail(_: Held) -> None:
        raise RuntimeError("who knows")

    key = fresh("welcome")
    with pytest.raises(RuntimeError):
        claims.once(key, fail)
    with pytest.raises(OutcomeUnknownError):
        claims.once(key, lambda _: "sent")
    key = fresh("welcome")
    with pytest.raises(RuntimeError):
        claims.once(key, fail, effects="idempotent")
    assert claims.once(key, lambda _: "sent", effects="idempotent") == "sent"


def test_a_claim_in_somebodys_hand_is_busy_and_the_same_begin_again_is_not(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    first = claims.begin(key, nonce="a")
    assert first["status"] == "acquired"
    assert claims.begin(key, nonce="a")["fence"] == first["fence"]
    assert claims.begin(key)["status"] == "busy"
    with pytest.raises(InProgressError):
        claims.once(key, lambda _: 1, wait=0.0)


def test_a_claim_is_completed_once_and_the_same_words_again_change_nothing(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    fence = claims.begin(key)["fence"]
    assert claims.renew(key, fence, lease=90.5)["status"] == "acquired"
    assert claims.complete(key, fence, {"mail": 1})["status"] == "done"
    assert claims.complete(key, fence, {"mail": 1})["status"] == "done"
    with pytest.raises(FenceStaleError):
        claims.complete(key, fence, {"mail": 2})
    with pytest.raises(FenceStaleError):
        claims.complete(key, fence - 1, {"mail": 1})
    assert claims.get(key)["outcome"] == {"mail": 1}


def test_a_word_that_comes_late_is_weighed_by_what_became_of_the_claim(once: Client) -> None:
    claims = once.claims("mails")
    # Its holder did not know, and then it did.
    key = fresh("welcome")
    fence = claims.begin(key, effects="idempotent")["fence"]
    for _ in range(2):
        assert claims.release(key, fence, may_have_executed=True)["status"] == "released"
    assert claims.get(key)["status"] == "lapsed"
    with pytest.raises(FenceStaleError):
        claims.renew(key, fence)
    assert claims.complete(key, fence, 1)["status"] == "done"
    # In doubt, and then it knows that nothing was done.
    key = fresh("welcome")
    fence = claims.begin(key)["fence"]
    assert claims.release(key, fence, may_have_executed=True)["status"] == "in_doubt"
    for _ in range(2):
        assert claims.release(key, fence)["status"] == "released"
    with pytest.raises(FenceStaleError):
        claims.complete(key, fence, 1)
    with pytest.raises(FenceStaleError):
        claims.release(key, fence, may_have_executed=True)


def test_what_a_first_begin_says_is_remembered_and_later_ones_change_nothing_of_it(
    once: Client,
) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    first = claims.begin(key)
    claims.release(key, first["fence"], reason="no time")
    second = claims.begin(key, effects="idempotent", fingerprint="anna")
    assert second["effects"] == "non-idempotent"
    assert second["fence"] > first["fence"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert second["operation"] == first["operation"]
    claims.release(key, second["fence"], may_have_executed=True)
    other = claims.begin(key, fingerprint="otto")
    assert other["status"] == "in_doubt", "the first said nothing of what it is about"


def test_what_is_given_back_for_later_is_busy_until_then(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    claims.release(key, claims.begin(key)["fence"], retry_after=3600)
    busy = claims.begin(key)
    assert busy["status"] == "busy"
    assert busy["retry_after_ms"] > 3_000_000
    soon = fresh("welcome")
    claims.release(soon, claims.begin(soon)["fence"], retry_after=0.02)
    assert claims.once(soon, lambda _: "sent") == "sent"


def test_only_who_has_a_claim_in_hand_is_told_its_fence_and_others_who_that_is(
    once: Client,
) -> None:
    claims = once.claims("mails", holder="worker-1")
    key = fresh("welcome")
    assert claims.begin(key)["fence"] > 0
    busy = claims.begin(key)
    assert ("fence" in busy, busy["holder"]) == (False, "worker-1")
    assert claims.get(key)["status"] == "busy"
    for ask in (claims.get, lambda key: claims.complete(key, 1)):
        with pytest.raises(ProblemError) as told:
            ask(fresh("welcome"))
        assert told.value.code == "not-found"


def test_a_begin_that_waits_is_told_what_became_of_it(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    fence = claims.begin(key)["fence"]
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(claims.begin, key, wait=60)
        claims.complete(key, fence, {"mail": 1})
        assert waiting.result()["outcome"] == {"mail": 1}


def test_an_outcome_that_cannot_be_written_leaves_a_doubt_at_once(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    # JSON has no sets.
    with pytest.raises(UnwrittenError):
        claims.once(key, lambda _: {1, 2})
    assert claims.get(key)["status"] == "in_doubt"


def test_what_did_not_succeed_is_told_to_all_as_that(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    claims.complete(key, claims.begin(key)["fence"], {"why": "no such mailbox"}, ok=False)
    with pytest.raises(EffectFailedError) as told:
        claims.once(key, lambda _: 1)
    assert told.value.outcome == {"why": "no such mailbox"}


def test_the_key_of_a_claim_is_compared_by_what_it_is_about(once: Client) -> None:
    claims = once.claims("mails")
    key = fresh("welcome")
    claims.begin(key, fingerprint={"to": "anna"})
    with pytest.raises(KeyMismatchError) as told:
        claims.begin(key, fingerprint={"to": "otto"})
    assert told.value.problem["differs"] == ["fingerprint"]


def test_a_gateway_that_is_not_there_is_told_from_one_that_refuses() -> None:
    with (
        Onceward("http://127.0.0.1:1", retry=RETRY) as once,
        pytest.raises(UnreachableError) as told,
    ):
        once.send("demo/orders", key="k", body="a")
    assert told.value.key == "k"
