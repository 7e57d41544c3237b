"""What tests share: one real gateway for all of them, and both clients with one face."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from world import Gateway

from onceward import Accepted, Answer, AsyncOnceward, Held, Onceward, RetryPolicy
from onceward.testing import FakeGateway

#: Quick enough for tests, and often enough that the gateway's own advice decides.
RETRY = RetryPolicy(attempts_max=2, base=0.001, cap=0.005)


@pytest.fixture(scope="session")
def gateway() -> Iterator[Gateway]:
    started = Gateway()
    yield started
    started.stop()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class OfTasks:
    """The asynchronous client with the face of the blocking one, so that one test is for both."""

    def __init__(self, portal: BlockingPortal, client: AsyncOnceward) -> None:
        self._portal = portal
        self._client = client

    def send(self, *args: Any, **rest: Any) -> Answer:
        return self._portal.call(lambda: self._client.send(*args, **rest))

    def accept(self, *args: Any, **rest: Any) -> Accepted:
        return self._portal.call(lambda: self._client.accept(*args, **rest))

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return lambda *args, **rest: self._portal.call(
            lambda: getattr(self._client, verb)(*args, **rest)
        )

    def claims(self, scope: str, **rest: Any) -> ClaimsOfTasks:
        return ClaimsOfTasks(self._portal, self._client, scope, rest)


class ClaimsOfTasks:
    """The claims of the asynchronous client, likewise."""

    def __init__(
        self, portal: BlockingPortal, client: AsyncOnceward, scope: str, rest: dict[str, Any]
    ) -> None:
        self._portal = portal
        self._claims = client.claims(scope, **rest)

    def once(self, key: str, effect: Callable[[Held], object], **rest: Any) -> object:
        async def run(held: Held) -> object:
            return effect(held)

        return self._portal.call(lambda: self._claims.once(key, run, **rest))

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        return lambda *args, **rest: self._portal.call(
            lambda: getattr(self._claims, verb)(*args, **rest)
        )


@pytest.fixture(params=["gateway", "gateway-async", "double", "double-async"])
def once(request: pytest.FixtureRequest) -> Iterator[Onceward | OfTasks]:
    """A client of either kind, of the gateway or of its double."""
    kind, _, is_async = request.param.partition("-")
    where: dict[str, Any] = {"transport": FakeGateway().transport}
    if kind == "gateway":
        where = {"url": request.getfixturevalue("gateway").url}
    if not is_async:
        with Onceward(retry=RETRY, **where) as client:
            yield client
        return
    with start_blocking_portal() as portal:
        tasks = AsyncOnceward(retry=RETRY, **where)
        yield OfTasks(portal, tasks)
        portal.call(tasks.aclose)
