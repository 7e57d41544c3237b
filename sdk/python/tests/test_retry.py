"""When a call is made again, and what each call carries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from scripted import Scripted, claim, refusal

from onceward import (
    VERSION,
    AnswerUnreadableError,
    Onceward,
    Options,
    ProblemError,
    RetryPolicy,
    UnavailableError,
    UnreachableError,
    new_key,
)
from onceward.flow import retry_after
from onceward.keys import key_field, read_key
from onceward.units import duration, read_duration


def test_every_call_of_one_intent_has_one_key_and_the_same_bytes() -> None:
    gateway = Scripted(
        httpx.ConnectError("no way"),
        refusal(503, "same-key", "draining"),
        httpx.Response(502, text="a proxy's"),
    )
    answer = gateway.client().send("pay/charges", body={"b": 1, "a": [2]})
    assert answer.text == "done"
    assert len(gateway.asked) == 4
    assert {request.headers["idempotency-key"] for request in gateway.asked} == {answer.key}
    assert {request.content for request in gateway.asked} == {b'{"b":1,"a":[2]}'}


@pytest.mark.parametrize(
    ("status", "advice", "code"),
    [
        (400, "fix-request", "option-invalid"),
        (409, "new-key", "key-mismatch"),
        (504, "escalate", "outcome-unknown"),
    ],
)
def test_what_only_another_request_or_a_person_can_mend_is_asked_once(
    status: int, advice: str, code: str
) -> None:
    gateway = Scripted(refusal(status, advice, code))
    with pytest.raises(ProblemError) as told:
        gateway.client().send("pay")
    assert told.value.advice == advice
    assert len(gateway.asked) == 1


def test_what_passes_by_without_a_key_is_not_asked_again_for_an_upstreams_own_answer() -> None:
    gateway = Scripted(httpx.Response(503))
    assert gateway.client().send("pay", method="GET").status == 503
    assert len(gateway.asked) == 1


def test_no_call_comes_earlier_than_it_was_asked_for_and_none_where_that_is_too_late() -> None:
    gateway = Scripted(refusal(503, "same-key", "limit", **{"retry-after": "1"}))
    began = time.monotonic()
    gateway.client().send("pay")
    assert time.monotonic() - began >= 1
    late = Scripted(refusal(503, "same-key", "limit", **{"retry-after": "3600"}))
    with pytest.raises(UnavailableError) as told:
        late.client().send("pay")
    assert told.value.retry_after == 3600
    assert len(late.asked) == 1


def test_attempts_have_an_end_and_what_is_known_is_said() -> None:
    gateway = Scripted(*[httpx.ReadTimeout("no way")] * 9)
    with pytest.raises(UnreachableError, match="no way") as told:
        gateway.client(RetryPolicy(attempts_max=3, base=0.001)).send("pay", key="k-1")
    assert told.value.key == "k-1"
    assert isinstance(told.value.__cause__, httpx.ReadTimeout)
    assert len(gateway.asked) == 3


ALIEN = {"message": "bad gateway"}


@pytest.mark.parametrize("status", [200, 302, 404, 500])
def test_only_what_the_gateway_says_is_an_answer_of_the_apis(status: int) -> None:
    gateway = Scripted(*(httpx.Response(status, json=ALIEN) for _ in range(5)))
    once = gateway.client()
    mails = once.claims("mails")
    for ask in (
        lambda: mails.complete("a", 7, 1),
        lambda: mails.renew("a", 7),
        lambda: mails.get("a"),
        lambda: once.operation("op_1"),
        lambda: once.response("op_1"),
    ):
        with pytest.raises(AnswerUnreadableError) as told:
            ask()
        assert told.value.advice == "escalate"
    other = Scripted(claim("acquired"), httpx.Response(200, text="<html>")).client().claims("mails")
    for _ in range(2):
        with pytest.raises(AnswerUnreadableError):
            other.complete("a", 7, 1)


def test_a_claim_and_a_read_are_asked_again_behind_a_proxy_that_is_there_alone() -> None:
    gateway = Scripted(httpx.Response(502, text="<html>"), claim("done"))
    assert gateway.client().claims("mails").complete("a", 7, 1)["status"] == "done"
    assert len(gateway.asked) == 2


def test_a_proxys_answer_that_is_left_at_the_end_is_no_answer() -> None:
    away = Scripted(*(httpx.Response(502, text="<html>") for _ in range(10))).client()
    odd = Scripted(httpx.Response(500, json=ALIEN)).client()
    for make in (away.send, away.accept, odd.accept):
        with pytest.raises(UnreachableError) as told:
            make("pay", key="k")
        assert (told.value.advice, told.value.key) == ("same-key", "k")


def test_a_key_that_is_given_as_a_header_is_told_as_the_gateway_reads_it() -> None:
    once = Scripted().client()
    assert once.send("pay", headers={"Idempotency-Key": '"a \\"b\\""'}).key == 'a "b"'
    with pytest.raises(ValueError, match="cannot be read as a key"):
        once.send("pay", headers={"Idempotency-Key": "a, b"})


def test_an_upstreams_own_problem_is_its_answer() -> None:
    own = httpx.Response(
        422,
        json={"type": "urn:onceward:problem:limit"},
        headers={"onceward-operation": "op_1"},
    )
    assert Scripted(own).client().send("pay").status == 422


def test_a_call_says_who_makes_it_and_what_it_wants() -> None:
    gateway = Scripted()
    gateway.client(url="http://gateway/once/", access_key="ow_1").send(
        "pay",
        "/charges?a=1",
        key='with "quotes"',
        headers={"Authorization": "Bearer sk_1"},
        form={"a": 1, "b": ["x", "y"]},
        options=Options(
            label="charge",
            subject="order/1",
            sequence=2,
            delay=90.5,
            deadline=datetime(2030, 1, 1, tzinfo=UTC),
        ),
    )
    [request] = gateway.asked
    assert str(request.url) == "http://gateway/once/to/pay/charges?a=1"
    said = request.headers
    assert said["idempotency-key"] == '"with \\"quotes\\""'
    assert said["onceward-authorization"] == "Bearer ow_1"
    assert said["authorization"] == "Bearer sk_1"
    assert said["user-agent"] == f"onceward-python/{VERSION}"
    assert said["onceward-delay"] == "1m 30s 500ms"
    assert said["onceward-sequence"] == "2"
    assert said["onceward-deadline"] == "2030-01-01T00:00:00+00:00"
    assert said["content-type"] == "application/x-www-form-urlencoded"
    assert request.content == b"a=1&b=x&b=y"


@pytest.mark.parametrize(
    "to", ["", "pay/../../v1/access", "pay/%2e%2E/x", "pay/a#b", "pay\\x", "pay/a b"]
)
def test_an_address_that_a_urls_rules_would_change_is_refused(to: str) -> None:
    gateway = Scripted()
    with pytest.raises(ValueError, match=r"address|`to`"):
        gateway.client().send(to)
    assert gateway.asked == []


def test_what_cannot_be_the_same_each_time_is_refused() -> None:
    once = Scripted().client()
    with pytest.raises(ValueError, match="begin with a slash"):
        once.send("pay", "charges")
    with pytest.raises(ValueError, match="it is empty"):
        once.send("pay", key="")
    with pytest.raises(TypeError, match="not the same bytes"), Path(__file__).open("rb") as file:
        once.send("pay", body=file)


def test_an_address_of_a_gateway_has_no_password_and_no_wait_is_without_an_end() -> None:
    with pytest.raises(ValueError, match="access_key"):
        Onceward("http://anna:s3cret@gateway")
    gateway = Scripted()
    with pytest.raises(ValueError, match="no time to wait"):
        gateway.client().accept("pay", wait=math.inf)
    assert gateway.asked == []


def test_no_look_at_an_operation_takes_longer_than_is_left() -> None:
    gateway = Scripted(httpx.ReadTimeout("no way"))
    with pytest.raises(UnreachableError):
        gateway.client(RetryPolicy(base=5.0)).wait("op_1", timeout=0)
    [asked] = gateway.asked
    assert asked.extensions["timeout"]["read"] <= 1.0


def test_a_url_of_an_upstream_stands_in_the_place_of_a_route() -> None:
    gateway = Scripted()
    gateway.client(url="http://gateway").send("https://api.example/a", "?b=1")
    assert str(gateway.asked[0].url) == "http://gateway/to/https://api.example/a?b=1"


def test_keys_durations_and_dates_are_written_and_read_as_the_gateway_does() -> None:
    assert new_key() != new_key()
    for key in ("a", 'a "b" \\c', "a,b", "order/1"):
        assert read_key(key_field(key)) == key
    for field in ("", '"a', 'a"b', "a b", "a, b", "é", "x" * 256):
        assert read_key(field) is None, field
    assert read_key(' "a" ;x=1') == "a"
    assert duration(0) == "0ms"
    assert duration(3 * 86_400 + 0.005) == "3d 5ms"
    for seconds in (0, 0.005, 90.5, 3 * 86_400 + 0.005):
        assert read_duration(duration(seconds)) == seconds
    for text in ("", "5", "s", "5y", None):
        assert read_duration(text) is None
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    wait: Callable[[str], float | None] = lambda text: retry_after({"retry-after": text}, now)  # noqa: E731
    assert wait("7") == 7
    assert wait("Thu, 01 Jan 2026 00:00:09 GMT") == 9
    assert wait("Wed, 31 Dec 2025 00:00:00 GMT") == 0
    assert wait("soon") is None


def test_the_version_is_the_manifests() -> None:
    manifest = Path(__file__).resolve().parents[1] / "pyproject.toml"
    assert f'version         = "{VERSION}"' in manifest.read_text()
