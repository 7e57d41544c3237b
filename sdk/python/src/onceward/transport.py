"""httpx through the gateway: a transport, so that code which has a client stays what it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator
from typing import cast

import httpx

from .client import AsyncOnceward, Onceward, _Client, _told
from .errors import UnreachableError
from .flow import Ask, NoAnswerError, Pause, retrying
from .keys import is_safe
from .request import Prepared

#: The key of a call, by its method and URL.
KeyOf = Callable[[str, httpx.URL], str | None]


def ready_of(
    client: _Client,
    route: str,
    method: str,
    target: str,
    headers: httpx.Headers,
    content: bytes,
    key: str | None,
) -> Prepared:
    """A call as the gateway gets it: whom it was for, the gateway knows by the route."""
    lines = httpx.Headers(
        [
            it
            for it in headers.multi_items()
            if it[0] not in ("host", "content-length", "connection")
        ]
    )
    if "idempotency-key" in lines or is_safe(method):
        key = None
    return client.prepare(route, target, method=method, headers=lines, body=content, key=key)


class OnceTransport(httpx.BaseTransport):
    """Has the calls of a client go through a route, again with the same key as long as that helps.

        httpx.Client(mounts={"https://api.stripe.com": OnceTransport("stripe")})

    A call's own `Idempotency-Key` goes before `key`; where neither says, a key is made that
    protects the retries of this one call. Answers are as they come: refusals of the gateway's are
    responses with `Onceward-Advice`.
    """

    def __init__(
        self,
        route: str,
        client: Onceward | None = None,
        *,
        key: KeyOf | None = None,
        inner: httpx.BaseTransport | None = None,
    ) -> None:
        self._route = route
        self._client = client or Onceward()
        self._key = key
        self._inner = inner or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Makes the call, as often as it takes."""
        content = request.read()
        key = self._key(request.method, request.url) if self._key else None
        target = request.url.raw_path.decode("ascii")
        ready = ready_of(
            self._client, self._route, request.method, target, request.headers, content, key
        )
        is_repeatable = ready.key is not None or is_safe(ready.method)
        steps: Generator[Ask | Pause, httpx.Response | None, httpx.Response] = retrying(
            ready, self._client.retry, is_repeatable=is_repeatable
        )
        last: httpx.Response | None = None
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    if last is not None:
                        last.close()
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                last = None
                try:
                    with _told():
                        last = self._inner.handle_request(_request_of(step, request))
                except NoAnswerError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(last)
        except StopIteration as end:
            return cast(httpx.Response, end.value)
        except UnreachableError as error:
            # Whoever has this client knows its errors, and none of ours.
            raise error.__cause__ or error from None

    def close(self) -> None:
        """Closes its connections."""
        self._inner.close()


class AsyncOnceTransport(httpx.AsyncBaseTransport):
    """What `OnceTransport` is, for `httpx.AsyncClient`."""

    def __init__(
        self,
        route: str,
        client: AsyncOnceward | None = None,
        *,
        key: KeyOf | None = None,
        inner: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._route = route
        self._client = client or AsyncOnceward()
        self._key = key
        self._inner = inner or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Makes the call, as often as it takes."""
        content = await request.aread()
        key = self._key(request.method, request.url) if self._key else None
        target = request.url.raw_path.decode("ascii")
        ready = ready_of(
            self._client, self._route, request.method, target, request.headers, content, key
        )
        is_repeatable = ready.key is not None or is_safe(ready.method)
        steps: Generator[Ask | Pause, httpx.Response | None, httpx.Response] = retrying(
            ready, self._client.retry, is_repeatable=is_repeatable
        )
        last: httpx.Response | None = None
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    if last is not None:
                        await last.aclose()
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                last = None
                try:
                    with _told():
                        last = await self._inner.handle_async_request(_request_of(step, request))
                except NoAnswerError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(last)
        except StopIteration as end:
            return cast(httpx.Response, end.value)
        except UnreachableError as error:
            # Whoever has this client knows its errors, and none of ours.
            raise error.__cause__ or error from None

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._inner.aclose()


def _request_of(step: Ask, asked: httpx.Request) -> httpx.Request:
    """The request to the gateway; how long it may take, whoever called has said."""
    ready = step.request
    return httpx.Request(
        ready.method,
        ready.url,
        headers=ready.headers,
        content=ready.content,
        extensions=asked.extensions,
    )
