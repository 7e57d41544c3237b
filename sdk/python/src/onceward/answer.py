"""What a call comes to: the upstream's answer, and what the gateway says of its operation."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, cast

import httpx

from .shapes import Advice, State

#: The largest answer that is read, in bytes.
ANSWER_BYTES_MAX = 64 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """The upstream's answer: of now, or from the ledger."""

    status: int
    headers: httpx.Headers
    #: The body, as it came.
    content: bytes = field(repr=False)
    #: The idempotency key that the call was made with.
    key: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the status is a 2xx."""
        return 200 <= self.status < 300

    @property
    def operation(self) -> str | None:
        """The operation's id; nothing where the call passed without a record."""
        return cast("str | None", self.headers.get("onceward-operation"))

    @property
    def state(self) -> State | None:
        """Where the operation stands."""
        return cast("State | None", self.headers.get("onceward-state"))

    @property
    def is_accepted(self) -> bool:
        """Whether it is on disk and goes on by itself, and this is not the upstream's answer."""
        return self.status == 202 and self.state in ("pending", "delivering")

    @property
    def replayed(self) -> bool:
        """Whether it came from the ledger: the upstream was not asked."""
        return bool(self.headers.get("idempotent-replayed") == "true")

    @property
    def attempts(self) -> int | None:
        """How many attempts were made at the upstream."""
        text = self.headers.get("onceward-attempts")
        return None if text is None else int(text)

    @property
    def advice(self) -> Advice | None:
        """What is left to do, where something is."""
        return cast("Advice | None", self.headers.get("onceward-advice"))

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.content)
