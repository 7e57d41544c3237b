"""Webhooks: the providers' own examples; both SDKs are held to them."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from onceward import Verified, WebhookRejectedError, verify_webhook
from onceward.testing import sign_webhook

_FILE = os.environ.get("TEST_WEBHOOKS") or Path(__file__).parents[2] / "webhooks.json"
EXAMPLES: list[dict[str, Any]] = json.loads(Path(_FILE).read_text())

every = pytest.mark.parametrize("example", EXAMPLES, ids=[it["scheme"] for it in EXAMPLES])


def verified(
    example: dict[str, Any],
    *,
    body: Any = None,
    secrets: list[str] | None = None,
    headers: dict[str, str] | None = None,
    late: int = 0,
) -> Verified:
    return verify_webhook(
        example["body"] if body is None else body,
        example["headers"] if headers is None else headers,
        secrets or example["secret"],
        scheme=example["scheme"],
        now=datetime.fromtimestamp(example["at"] + late, UTC),
    )


@every
def test_it_is_verified_as_its_provider_signs_it_and_nothing_else_is(
    example: dict[str, Any],
) -> None:
    said = verified(example)
    assert (said.id, said.secret) == (example["id"], 0)
    assert verified(example, body=example["body"].encode()) == said
    with pytest.raises(WebhookRejectedError) as told:
        verified(example, body=example["body"] + " ")
    assert told.value.reason == "signature_mismatch"
    if example["signs_time"]:
        assert verified(example, late=300) == said
        for late, reason in ((301, "too_old"), (-301, "too_new")):
            with pytest.raises(WebhookRejectedError) as told:
                verified(example, late=late)
            assert told.value.reason == reason


@every
def test_it_takes_an_old_and_a_new_secret_and_tells_which_one_fitted(
    example: dict[str, Any],
) -> None:
    is_standard = example["scheme"] in ("standard-webhooks", "svix")
    other = "whsec_" + "A" * 32 if is_standard else "another"
    assert verified(example, secrets=[other, example["secret"]]).secret == 1
    with pytest.raises(WebhookRejectedError):
        verified(example, secrets=[other])


@every
def test_it_says_which_header_is_missing(example: dict[str, Any]) -> None:
    names = list(example["headers"])
    [name] = [it for it in names if "signature" in it.lower() or "hmac" in it.lower()]
    rest = {other: value for other, value in example["headers"].items() if other != name}
    for headers, reason in ((rest, "header_missing"), ({**rest, name: ""}, "header_unreadable")):
        with pytest.raises(WebhookRejectedError) as told:
            verified(example, headers=headers)
        assert told.value.reason == reason


def test_a_body_that_was_parsed_is_told_to_be_one_and_the_mend_with_it() -> None:
    parsed: Any
    for parsed in ({"a": 1}, None, 7):
        with pytest.raises(TypeError, match=r"raw body.*take the bytes before any parser"):
            verify_webhook(parsed, {}, "whsec_" + "A" * 32)


def test_what_the_double_signs_is_verified_by_headers_of_any_kind() -> None:
    secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
    headers = sign_webhook('{"a":1}', secret, event="msg_1")
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    for kind in (headers, list(headers.items()), raw):
        assert verify_webhook(b'{"a":1}', kind, [secret]).id == "msg_1"
    with pytest.raises(WebhookRejectedError) as told:
        verify_webhook(b'{"a":1}', [*headers.items(), ("Webhook-Id", "msg_2")], secret)
    assert told.value.reason == "header_unreadable"


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_!", "whsec_AAAA", "whpk_AAAA", "whsk_AAAA"]
)
def test_a_secret_that_cannot_be_one_is_refused_before_anything_is_verified(secret: str) -> None:
    with pytest.raises(ValueError, match=r"secret|whpk|whsk|key"):
        verify_webhook(b"", {}, secret)
