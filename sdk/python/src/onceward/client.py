"""The clients: calls through the gateway, and what became of them; blocking and asynchronous."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httpx

from . import _calls
from ._calls import Read, Steps
from .answer import ANSWER_BYTES_MAX, Answer
from .claims import AsyncClaims, Claims
from .errors import AnswerTooLargeError
from .flow import Ask, NoAnswerError, Pause, RetryPolicy
from .request import Headers, Options, Prepared, prepare
from .shapes import Answer as KeptAnswer
from .shapes import Effects, OperationStory
from .version import USER_AGENT

#: Where the gateway listens where nothing says otherwise.
_URL = "http://127.0.0.1:7077"

#: How long a connection may take, in seconds.
_CONNECT = 10.0

#: How long an operation is waited for where nothing is said, in seconds.
_WAIT = 60.0


@dataclass(frozen=True)
class Accepted:
    """A call that is on disk: it goes on by itself."""

    #: The operation's id.
    operation: str
    key: str | None
    #: The outcome, where it was there in time.
    answer: Answer | None


class _Client:
    """What both clients are made of."""

    def __init__(self, url: str | None, access_key: str | None, retry: RetryPolicy | None) -> None:
        address = url or os.environ.get("ONCEWARD_URL") or _URL
        if not address.startswith(("http://", "https://")):
            raise ValueError(f"{address!r} is no address of a gateway: write {_URL}")
        if "@" in urlsplit(address).netloc:
            raise ValueError(
                "the gateway's address has a name or a password in it: give an access_key"
            )
        #: The gateway's address, without a slash at its end.
        self.url = address.rstrip("/")
        self.retry = retry or RetryPolicy()
        self._headers = httpx.Headers({"user-agent": USER_AGENT})
        if access_key := access_key or os.environ.get("ONCEWARD_ACCESS_KEY"):
            self._headers["onceward-authorization"] = f"Bearer {access_key}"

    def prepare(
        self,
        to: str,
        path: str = "",
        *,
        method: str = "POST",
        headers: Headers | None = None,
        body: object = None,
        form: Mapping[str, object] | None = None,
        key: str | None = None,
        options: Options | None = None,
    ) -> Prepared:
        """A call with all that it is sent with: for whoever sends it by other means."""
        asked = options or Options()
        ready = prepare(self.url, to, path, method, headers, body, form, key, asked)
        for name, value in self._headers.items():
            ready.headers.setdefault(name, value)
        return ready

    def _ask(self, path: str) -> Steps:
        return _calls.ask(self.url, self._headers, self.retry, path)

    def _post(self, path: str, body: object, extra: float, until: float) -> Steps:
        head = (self.url, self._headers, self.retry)
        return _calls.ask_for(*head, "POST", path, body, extra, until)

    def _operation(self, name: str) -> Steps:
        return _calls.operation(self.url, self._headers, self.retry, name)

    def _response(self, name: str) -> Steps:
        return _calls.response(self.url, self._headers, self.retry, name)

    def _wait(self, operation: str, timeout: float) -> Steps:
        return _calls.wait_for(self.url, self._headers, self.retry, operation, timeout)


def _timeout(step: Ask) -> httpx.Timeout:
    return httpx.Timeout(step.timeout, connect=min(_CONNECT, step.timeout))


@contextmanager
def _told() -> Iterator[None]:
    """What breaks on the way is told to the flow, which decides."""
    try:
        yield
    except httpx.TransportError as error:
        raise NoAnswerError(str(error) or type(error).__name__) from error


def _whole(response: httpx.Response, pieces: list[bytes]) -> Read:
    return Read(response.status_code, response.headers, b"".join(pieces))


def _check_size(bytes_read: int, key: str | None) -> None:
    if bytes_read > ANSWER_BYTES_MAX:
        said = f"the answer is larger than {ANSWER_BYTES_MAX} bytes; the call itself was made"
        raise AnswerTooLargeError(said, key)


class Onceward(_Client):
    """A client of one gateway, which blocks. It may be shared by threads.

    `url` and `access_key` are those of the environment (`ONCEWARD_URL`, `ONCEWARD_ACCESS_KEY`)
    where nothing is said; `http` is a client of httpx with a proxy or certificates of your own.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        access_key: str | None = None,
        retry: RetryPolicy | None = None,
        http: httpx.Client | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, access_key, retry)
        self._http = http or httpx.Client(transport=transport)

    def send(
        self,
        to: str,
        path: str = "",
        *,
        method: str = "POST",
        headers: Headers | None = None,
        body: object = None,
        form: Mapping[str, object] | None = None,
        key: str | None = None,
        label: str | None = None,
        options: Options | None = None,
    ) -> Answer:
        """Makes a call and waits for the upstream's answer, whatever its status.

        It is made again, with the same key, as long as the gateway says that this helps. `body` is
        text or bytes as they stand, or anything as JSON. Give a `key` that you keep, so that it
        outlives this process too; without one, a key is made that protects this call's retries.

        Raises `OutcomeUnknownError` where nobody knows whether it was done, another `ProblemError`
        where the gateway refused it, and `UnreachableError` where no answer of the gateway's came.
        """
        ready = self.prepare(
            to,
            path,
            method=method,
            headers=headers,
            body=body,
            form=form,
            key=key,
            options=_labelled(options, label),
        )
        return cast(Answer, self.run(_calls.send(ready, self.retry)))

    def accept(
        self,
        to: str,
        path: str = "",
        *,
        method: str = "POST",
        headers: Headers | None = None,
        body: object = None,
        form: Mapping[str, object] | None = None,
        key: str | None = None,
        label: str | None = None,
        options: Options | None = None,
        wait: float | None = None,
    ) -> Accepted:
        """Has a call remembered, and made without anybody who waits. What comes back is on disk.

        With `wait` it waits so many seconds for an outcome that comes soon.
        """
        ready = self.prepare(
            to,
            path,
            method=method,
            headers=headers,
            body=body,
            form=form,
            key=key,
            options=_labelled(options, label),
        )
        answer = cast(Answer, self.run(_calls.accept(ready, self.retry, wait)))
        return _accepted(answer)

    def operation(self, operation: str) -> OperationStory:
        """The story of an operation."""
        return cast(OperationStory, self.run(self._operation(operation)))

    def response(self, operation: str) -> KeptAnswer:
        """The answer that is kept of an operation."""
        return cast(KeptAnswer, self.run(self._response(operation)))

    def wait(self, operation: str, *, timeout: float = _WAIT) -> OperationStory:
        """Waits until an operation has ended: `done`, or `dead`.

        Raises `OutcomeUnknownError` where only a person can tell, and `WaitTimeoutError` where it
        has not ended in `timeout` seconds; it goes on by itself.
        """
        return cast(OperationStory, self.run(self._wait(operation, timeout)))

    def claims(
        self,
        scope: str,
        *,
        lease: float = 30.0,
        effects: Effects | None = None,
        holder: str | None = None,
    ) -> Claims:
        """The ledger as a service for one's own handlers: keys are unique within `scope`."""
        return Claims(self, scope, lease, effects, holder)

    def run(self, steps: Steps) -> Any:
        """Drives a flow: does what it asks for, and tells it what came of that."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    with _told():
                        read = self._make(step)
                except NoAnswerError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(read)
        except StopIteration as end:
            return end.value

    def _make(self, step: Ask) -> Read:
        ready = step.request
        request = self._http.build_request(
            ready.method,
            ready.url,
            headers=ready.headers,
            content=ready.content,
            timeout=_timeout(step),
        )
        # A redirect is the outcome, and whoever called decides about it.
        response = self._http.send(request, stream=True, follow_redirects=False)
        try:
            pieces, length = [], 0
            for piece in response.iter_bytes():
                length += len(piece)
                _check_size(length, ready.key)
                pieces.append(piece)
        finally:
            response.close()
        return _whole(response, pieces)

    def close(self) -> None:
        """Closes its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncOnceward(_Client):
    """A client of one gateway, for asyncio. What there is to say, `Onceward` says."""

    def __init__(
        self,
        url: str | None = None,
        *,
        access_key: str | None = None,
        retry: RetryPolicy | None = None,
        http: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, access_key, retry)
        self._http = http or httpx.AsyncClient(transport=transport)

    async def send(
        self,
        to: str,
        path: str = "",
        *,
        method: str = "POST",
        headers: Headers | None = None,
        body: object = None,
        form: Mapping[str, object] | None = None,
        key: str | None = None,
        label: str | None = None,
        options: Options | None = None,
    ) -> Answer:
        """Makes a call and waits for the upstream's answer, as `Onceward.send`."""
        ready = self.prepare(
            to,
            path,
            method=method,
            headers=headers,
            body=body,
            form=form,
            key=key,
            options=_labelled(options, label),
        )
        return cast(Answer, await self.run(_calls.send(ready, self.retry)))

    async def accept(
        self,
        to: str,
        path: str = "",
        *,
        method: str = "POST",
        headers: Headers | None = None,
        body: object = None,
        form: Mapping[str, object] | None = None,
        key: str | None = None,
        label: str | None = None,
        options: Options | None = None,
        wait: float | None = None,
    ) -> Accepted:
        """Has a call remembered, as `Onceward.accept`."""
        ready = self.prepare(
            to,
            path,
            method=method,
            headers=headers,
            body=body,
            form=form,
            key=key,
            options=_labelled(options, label),
        )
        answer = cast(Answer, await self.run(_calls.accept(ready, self.retry, wait)))
        return _accepted(answer)

    async def operation(self, operation: str) -> OperationStory:
        """The story of an operation."""
        return cast(OperationStory, await self.run(self._operation(operation)))

    async def response(self, operation: str) -> KeptAnswer:
        """The answer that is kept of an operation."""
        return cast(KeptAnswer, await self.run(self._response(operation)))

    async def wait(self, operation: str, *, timeout: float = _WAIT) -> OperationStory:  # noqa: ASYNC109
        """Waits until an operation has ended, as `Onceward.wait`."""
        return cast(OperationStory, await self.run(self._wait(operation, timeout)))

    def claims(
        self,
        scope: str,
        *,
        lease: float = 30.0,
        effects: Effects | None = None,
        holder: str | None = None,
    ) -> AsyncClaims:
        """The ledger as a service for one's own handlers: keys are unique within `scope`."""
        return AsyncClaims(self, scope, lease, effects, holder)

    async def run(self, steps: Steps) -> Any:
        """Drives a flow: does what it asks for, and tells it what came of that."""
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    with _told():
                        read = await self._make(step)
                except NoAnswerError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(read)
        except StopIteration as end:
            return end.value

    async def _make(self, step: Ask) -> Read:
        ready = step.request
        request = self._http.build_request(
            ready.method,
            ready.url,
            headers=ready.headers,
            content=ready.content,
            timeout=_timeout(step),
        )
        # A redirect is the outcome, and whoever called decides about it.
        response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            pieces, length = [], 0
            async for piece in response.aiter_bytes():
                length += len(piece)
                _check_size(length, ready.key)
                pieces.append(piece)
        finally:
            await response.aclose()
        return _whole(response, pieces)

    async def aclose(self) -> None:
        """Closes its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _labelled(options: Options | None, label: str | None) -> Options:
    if label is None:
        return options or Options()
    if options is not None:
        raise TypeError("the label of a call with options is one of them")
    return Options(label=label)


def _accepted(answer: Answer) -> Accepted:
    operation = answer.operation or ""
    return Accepted(operation, answer.key, None if answer.is_accepted else answer)
