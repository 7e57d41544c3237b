"""Gateways that answer as a test says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx

from onceward import AsyncOnceward, Onceward, RetryPolicy

QUICK = RetryPolicy(base=0.001, cap=0.002)

Said = httpx.Response | Exception


class Scripted:
    """A gateway that answers as it is told, and remembers what it was asked."""

    def __init__(self, *answers: Said) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if self.answers else httpx.Response(200, text="done")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, retry: RetryPolicy = QUICK, **rest: Any) -> Onceward:
        return Onceward(transport=self.transport, retry=retry, **rest)


def refusal(status: int, advice: str, code: str, **more: str) -> httpx.Response:
    said = {
        "type": f"urn:onceward:problem:{code}",
        "code": code,
        "advice": advice,
        "status": status,
        "title": "T",
        "detail": "D",
    }
    kind = {"content-type": "application/problem+json", "onceward-advice": advice}
    return httpx.Response(status, json=said, headers={**kind, **more})


def claim(status: str, lease: float | None = None) -> httpx.Response:
    """A claim as the gateway tells it; with `lease`, by a clock that is not ours."""
    said = {"key": "a", "status": status, "fence": 7, "operation": "op_1", "attempt": 1}
    headers = {}
    if lease is not None:
        at = datetime(2026, 1, 1, tzinfo=UTC)
        headers["date"] = format_datetime(at, usegmt=True)
        said["lease_until"] = (at + timedelta(seconds=lease)).isoformat()
    return httpx.Response(200, json={**said, "effects": "non-idempotent"}, headers=headers)


class Saying:
    """A gateway that answers each word about a claim as a test says, and remembers it."""

    def __init__(self, answer: Callable[[str], httpx.Response]) -> None:
        self.asked: list[httpx.Request] = []
        self._answer = answer
        self.transport = httpx.MockTransport(self._said)

    def _said(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self._answer(request.url.path.rsplit("/", 1)[-1])

    def client(self) -> Onceward:
        return Onceward(transport=self.transport, retry=QUICK)

    def tasks(self) -> AsyncOnceward:
        return AsyncOnceward(transport=self.transport, retry=QUICK)
