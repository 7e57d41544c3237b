"""Handlers of one's own that run once for a key: FastAPI, on a real gateway's ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from conftest import RETRY
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from scripted import refusal
from world import fresh

from onceward import AsyncOnceward, Keyed, NotDoneError, OnceMiddleware, RetryPolicy
from onceward.testing import FakeGateway

pytestmark = pytest.mark.anyio

Effect = Callable[[int], Awaitable[Response]]


@pytest.fixture(params=["gateway", "double"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[AsyncOnceward]:
    """What holds of the gateway holds of its double."""
    where: dict[str, Any] = {"transport": FakeGateway().transport}
    if request.param == "gateway":
        where = {"url": request.getfixturevalue("gateway").url}
    async with AsyncOnceward(retry=RETRY, **where) as made:
        yield made


async def created(run: int) -> Response:
    headers = {"location": f"/orders/{run}", "x-other": "1"}
    return Response(f'{{"order":{run}}}', 201, headers, "application/json")


class Api:
    """An API with one handler behind the middleware."""

    def __init__(self, client: AsyncOnceward, effect: Effect = created, **options: Any) -> None:
        self.runs = 0
        self.seen: list[Keyed | None] = []
        app = FastAPI()

        @app.post("/orders")
        async def order(request: Request) -> Response:
            await request.json()
            self.runs += 1
            self.seen.append(request.scope.get("onceward"))
            return await effect(self.runs)

        app.add_middleware(OnceMiddleware, scope="orders", client=client, **options)
        self.app = app
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://api")

    async def post(
        self, key: str | None, body: str = '{"qty":1}', **headers: str
    ) -> httpx.Response:
        lines = {"content-type": "application/json", **headers}
        if key is not None:
            lines["idempotency-key"] = key
        return await self._http.post("/orders", content=body, headers=lines)


async def test_a_handler_runs_once_and_a_duplicate_gets_its_answer(client: AsyncOnceward) -> None:
    api, key = Api(client), fresh("k")
    first, second = await api.post(key), await api.post(key)
    assert (first.status_code, first.headers["idempotent-replayed"]) == (201, "false")
    assert first.headers["x-other"] == "1"
    assert (second.status_code, second.headers["idempotent-replayed"]) == (201, "true")
    assert second.headers["location"] == "/orders/1"
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["idempotency-key"] == key
    assert second.content == first.content
    assert api.runs == 1
    assert api.seen[0] is not None
    assert api.seen[0].operation == first.headers["onceward-operation"]


async def test_who_comes_while_it_runs_waits_for_its_answer(client: AsyncOnceward) -> None:
    gate = asyncio.Event()

    async def slow(run: int) -> Response:
        await gate.wait()
        return await created(run)

    api, key = Api(client, slow), fresh("k")
    both = [asyncio.create_task(api.post(key)) for _ in range(2)]
    while api.runs == 0:
        await asyncio.sleep(0)
    gate.set()
    first, second = await asyncio.gather(*both)
    assert first.content == second.content
    assert api.runs == 1


async def test_the_same_key_with_another_request_is_refused(client: AsyncOnceward) -> None:
    api, key = Api(client), fresh("k")
    await api.post(key)
    other = await api.post(key, '{"qty":2}')
    assert (other.status_code, other.json()["code"]) == (409, "key-mismatch")
    assert "operation" not in other.json(), "where it lies is none of a caller's business"
    assert api.runs == 1


async def test_what_has_no_key_passes_by_or_is_refused_where_one_is_wanted(
    client: AsyncOnceward,
) -> None:
    lax = Api(client)
    assert [(await lax.post(None)).status_code for _ in range(2)] == [201, 201]
    assert lax.runs == 2
    strict = Api(client, key_missing="require")
    assert (await strict.post(None)).json()["code"] == "key-required"
    assert (await strict.post("a b")).json()["code"] == "key-invalid"
    assert strict.runs == 0


async def test_keys_of_one_caller_are_nothing_to_another(client: AsyncOnceward) -> None:
    def principal(scope: Any) -> str | None:
        named = [value.decode() for name, value in scope["headers"] if name == b"x-user"]
        return named[0] if named else None

    api, key = Api(client, principal=principal), fresh("k")
    for user in ("anna", "otto", "anna", "a/b"):
        await api.post(key, **{"x-user": user})
    assert api.runs == 3
    await api.post(f"anna/{key}")
    assert api.runs == 4, "who has no name gets nobody's answer"


async def test_a_handler_that_fails_is_in_doubt_where_a_second_run_is_a_second_effect(
    client: AsyncOnceward,
) -> None:
    async def fail(run: int) -> Response:
        if run == 1:
            raise RuntimeError("who knows")
        return await created(run)

    api, key = Api(client, fail), fresh("k")
    assert (await api.post(key)).status_code == 500
    again = await api.post(key)
    assert (again.status_code, again.json()["code"]) == (409, "outcome-unknown")
    assert api.runs == 1
    harmless, key = Api(client, fail, effects="idempotent"), fresh("k")
    assert [(await harmless.post(key)).status_code for _ in range(2)] == [500, 201]


async def test_an_answer_or_an_error_that_says_that_nothing_was_done_frees_the_key(
    client: AsyncOnceward,
) -> None:
    async def busy(run: int) -> Response:
        return Response("busy", 429) if run == 1 else await created(run)

    async def closed(run: int) -> Response:
        if run == 1:
            raise NotDoneError("the bank is closed")
        return await created(run)

    for effect, status in ((busy, 429), (closed, 500)):
        api, key = Api(client, effect), fresh("k")
        assert (await api.post(key)).status_code == status
        assert (await api.post(key)).status_code == 201


async def test_an_answer_that_is_too_large_is_given_once_and_known_to_be_gone_after(
    client: AsyncOnceward,
) -> None:
    async def large(_: int) -> Response:
        return Response("x" * 100_000)

    api, key = Api(client, large, response_bytes_max=1000), fresh("k")
    assert len((await api.post(key)).content) == 100_000
    assert (await api.post(key)).json()["code"] == "response-not-retained"
    assert api.runs == 1


async def test_a_body_that_is_too_large_is_refused_before_anything_runs(
    client: AsyncOnceward,
) -> None:
    api = Api(client, body_bytes_max=4)
    assert (await api.post(fresh("k"))).status_code == 413
    assert api.runs == 0


async def test_what_the_ledger_will_not_take_of_a_handler_is_unknown_and_in_doubt_at_once() -> None:
    gateway = FakeGateway()

    async def refusing(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/complete"):
            return refusal(413, "fix-request", "body-too-large")
        return await gateway.transport.handle_async_request(request)

    async with AsyncOnceward(transport=httpx.MockTransport(refusing), retry=RETRY) as client:
        api, key = Api(client), fresh("k")
        for status in (504, 409):
            answer = await api.post(key)
            assert (answer.status_code, answer.json()["code"]) == (status, "outcome-unknown")
            assert answer.headers["onceward-advice"] == "escalate"
    assert api.runs == 1


async def test_a_handler_that_was_given_up_meanwhile_is_told_as_that() -> None:
    gateway, key = FakeGateway(), fresh("k")
    async with AsyncOnceward(transport=gateway.transport, retry=RETRY) as client:

        async def slow(run: int) -> Response:
            gateway.lapse("orders", key)
            await client.claims("orders").begin(key)
            return await created(run)

        answer = await Api(client, slow, effects="idempotent").post(key)
    assert (answer.status_code, answer.json()["code"]) == (409, "fence-stale")


async def test_a_caller_that_hangs_up_changes_nothing(client: AsyncOnceward) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def slow(run: int) -> Response:
        begun.set()
        await gate.wait()
        return await created(run)

    api, key = Api(client, slow), fresh("k")
    hasty = asyncio.create_task(api.post(key))
    await begun.wait()
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    gate.set()
    again = await api.post(key)
    assert (again.status_code, again.headers["idempotent-replayed"]) == (201, "true")
    assert api.runs == 1


async def test_a_caller_that_hangs_up_before_it_is_begun_leaves_no_doubt() -> None:
    gateway, held, gate = FakeGateway(), asyncio.Event(), asyncio.Event()

    async def slow(request: httpx.Request) -> httpx.Response:
        answer = await gateway.transport.handle_async_request(request)
        if request.url.path.endswith("/begin") and not gate.is_set():
            # It is begun, and its answer is on the way.
            held.set()
            await gate.wait()
        return answer

    async with AsyncOnceward(transport=httpx.MockTransport(slow), retry=RETRY) as client:
        api, key = Api(client), fresh("k")
        hasty = asyncio.create_task(api.post(key))
        await held.wait()
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
        gate.set()
        assert (await api.post(key)).status_code == 201
    assert api.runs == 1


def asked_of(key: str) -> dict[str, Any]:
    """A request's scope, as a server makes it."""
    headers = [(b"content-type", b"application/json"), (b"idempotency-key", key.encode())]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/orders",
        "raw_path": b"/orders",
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("api", 80),
    }


@pytest.mark.parametrize("bytes_max", [1 << 19, 1])
async def test_a_stream_whose_caller_hangs_up_comes_to_its_end_and_is_known(
    client: AsyncOnceward, bytes_max: int
) -> None:
    gone = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"order":'
        gone.set()
        # Whoever would break it off has its turns now.
        for _ in range(20):
            await asyncio.sleep(0)
        yield b"1}"

    async def streamed(_: int) -> Response:
        return StreamingResponse(pieces(), 201, media_type="application/json")

    api, key = Api(client, streamed, response_bytes_max=bytes_max), fresh("k")
    body = [{"type": "http.request", "body": b'{"qty":1}', "more_body": False}]

    async def receive() -> Any:
        if body:
            return body.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        if gone.is_set():
            raise OSError("the caller is gone")

    with pytest.raises(OSError, match="the caller is gone"):
        await api.app(asked_of(key), receive, send)
    again = await api.post(key)
    if bytes_max > 1:
        assert (again.status_code, again.content) == (201, b'{"order":1}')
    else:
        assert again.json()["code"] == "response-not-retained"
    assert api.runs == 1


async def test_a_handler_hears_that_its_caller_is_gone_once_it_has_answered(
    client: AsyncOnceward,
) -> None:
    heard: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})
        heard.append((await receive())["type"])

    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(OnceMiddleware(app, scope="orders", client=client)),
        base_url="http://api",
    )
    asking = http.post("/orders", headers={"idempotency-key": fresh("k")})
    # Else it would wait for its own end.
    await asyncio.wait_for(asking, 30)
    assert heard == ["http.request", "http.disconnect"]


async def test_an_error_of_a_handler_whose_caller_was_given_up_is_told(
    client: AsyncOnceward, caplog: pytest.LogCaptureFixture
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()

    async def fail(_: int) -> Response:
        begun.set()
        await gate.wait()
        raise RuntimeError("the bank said no")

    api, key = Api(client, fail), fresh("k")
    hasty = asyncio.create_task(api.post(key))
    await begun.wait()
    hasty.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hasty
    gate.set()
    assert (await api.post(key)).json()["code"] == "outcome-unknown"
    (told,) = [it for it in caplog.records if it.name == "onceward.asgi"]
    assert told.exc_info is not None
    assert "the bank said no" in str(told.exc_info[1])


async def test_where_the_ledger_is_away_nothing_runs() -> None:
    away = AsyncOnceward("http://127.0.0.1:1", retry=RetryPolicy(attempts_max=1))
    api = Api(away)
    answer = await api.post(fresh("k"))
    assert (answer.status_code, answer.headers["onceward-advice"]) == (503, "same-key")
    assert api.runs == 0
    await away.aclose()
