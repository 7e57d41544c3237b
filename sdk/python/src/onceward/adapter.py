"""requests through the gateway: an adapter that a session mounts.

session.mount("https://api.stripe.com", OnceAdapter("stripe"))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import requests
from requests.adapters import HTTPAdapter

from .client import Onceward
from .errors import UnreachableError
from .flow import Ask, NoAnswerError, Pause, retrying
from .keys import is_safe
from .transport import ready_of


class OnceAdapter(HTTPAdapter):
    """Has the calls of a session go through a route, again with one key as long as that helps.

    A call's own `Idempotency-Key` goes before `key`; where neither says, a key is made that
    protects the retries of this one call.
    """

    def __init__(
        self,
        route: str,
        client: Onceward | None = None,
        *,
        key: Callable[[str, str], str | None] | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self._route = route
        self._client = client or Onceward()
        self._key = key

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Makes the call, as often as it takes."""
        method, url = request.method or "GET", request.url or ""
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        content = _content_of(request.body)
        headers = httpx.Headers(dict(request.headers))
        key = self._key(method, url) if self._key else None
        ready = ready_of(self._client, self._route, method, target, headers, content, key)
        is_repeatable = ready.key is not None or is_safe(method)
        steps: Generator[Ask | Pause, requests.Response | None, requests.Response] = retrying(
            ready, self._client.retry, is_repeatable=is_repeatable
        )
        last: requests.Response | None = None
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    if last is not None:
                        last.close()
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                again = request.copy()
                again.url = step.request.url
                again.headers.update(step.request.headers)
                last = None
                try:
                    last = super().send(again, stream, timeout, verify, cert, proxies)
                except (requests.ConnectionError, requests.Timeout) as error:
                    told = NoAnswerError(str(error))
                    told.__cause__ = error
                    step = steps.throw(told)
                else:
                    # What the session makes of it is about what was asked for.
                    last.request, last.url = request, url
                    step = steps.send(last)
        except StopIteration as end:
            return cast(requests.Response, end.value)
        except UnreachableError as error:
            # Whoever has this client knows its errors, and none of ours.
            raise error.__cause__ or error from None


def _content_of(body: object) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, bytes):
        return body
    raise TypeError("a file or an iterator is not the same bytes each time: give its bytes")
