"""One line for code that has a client already, against a real gateway."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import requests
from conftest import RETRY
from world import Gateway, fresh

from onceward import AsyncOnceTransport, AsyncOnceward, OnceTransport, Onceward
from onceward.adapter import OnceAdapter

API = "https://api.example"
SCRIPT = "503,503,503,drop,201"


@pytest.fixture
def client(gateway: Gateway) -> Iterator[Onceward]:
    with Onceward(gateway.url, retry=RETRY) as made:
        yield made


def charged(client: Onceward) -> int:
    return int(client.send("demo/effects", method="GET").json()["count"])


def test_an_httpx_goes_through_the_gateway_and_comes_to_one_effect(client: Onceward) -> None:
    earlier = charged(client)
    key = {"Idempotency-Key": fresh("k")}
    with httpx.Client(mounts={API: OnceTransport("demo", client)}) as api:
        first = api.post(f"{API}/orders?script={SCRIPT}", json={"qty": 1}, headers=key)
        second = api.post(f"{API}/orders?script={SCRIPT}", json={"qty": 1}, headers=key)
        assert api.get(f"{API}/effects").json()["count"] == earlier + 1
    assert first.status_code == 201
    assert second.headers["idempotent-replayed"] == "true"
    assert second.content == first.content


def test_an_httpx_to_anywhere_else_is_left_alone(client: Onceward) -> None:
    with httpx.Client(mounts={API: OnceTransport("demo", client)}) as api:
        assert api.get(f"{client.url}/healthz").status_code == 200


@pytest.mark.anyio
async def test_an_asynchronous_httpx_goes_through_the_gateway(gateway: Gateway) -> None:
    async with AsyncOnceward(gateway.url, retry=RETRY) as client:
        transport = AsyncOnceTransport("demo", client)
        async with httpx.AsyncClient(transport=transport, base_url=API) as api:
            key = {"Idempotency-Key": fresh("k")}
            first = await api.post(f"/orders?script={SCRIPT}", json={"qty": 1}, headers=key)
            second = await api.post(f"/orders?script={SCRIPT}", json={"qty": 1}, headers=key)
        assert first.status_code == 201
        assert second.headers["idempotent-replayed"] == "true"
        assert second.content == first.content


def test_the_key_of_a_call_can_be_made_of_what_it_is_about(client: Onceward) -> None:
    key = fresh("cart")
    hook = OnceTransport("demo", client, key=lambda method, url: f"{key}{url.path}")
    with httpx.Client(transport=hook, base_url=API) as api:
        assert api.post("/orders").headers["idempotency-key"] == f"{key}/orders"
        assert api.post("/orders").headers["idempotent-replayed"] == "true"
        assert "idempotency-key" not in api.get("/effects").headers


def test_a_refusal_of_the_gateways_is_a_response_with_its_advice(client: Onceward) -> None:
    with httpx.Client(transport=OnceTransport("nowhere", client), base_url=API) as api:
        answer = api.post("/orders")
    assert (answer.status_code, answer.headers["onceward-advice"]) == (404, "fix-request")


def test_a_session_of_requests_goes_through_the_gateway_and_comes_to_one_effect(
    client: Onceward,
) -> None:
    earlier = charged(client)
    key = {"Idempotency-Key": fresh("k")}
    with requests.Session() as session:
        session.mount(API, OnceAdapter("demo", client))
        url = f"{API}/orders?script={SCRIPT}"
        first = session.post(url, json={"qty": 1}, headers=key, timeout=60)
        second = session.post(url, json={"qty": 1}, headers=key, timeout=60)
        assert session.get(f"{API}/effects", timeout=60).json()["count"] == earlier + 1
        made = session.post(f"{API}/orders", data={"a": "1"}, timeout=60)
        assert session.get(f"{client.url}/healthz", timeout=60).status_code == 200
    assert (first.status_code, first.url) == (201, url)
    assert second.headers["Idempotent-Replayed"] == "true"
    assert second.content == first.content
    assert "Onceward-Key-Made" not in made.headers
    assert len(made.headers["Idempotency-Key"]) == 36


def test_a_client_raises_as_it_always_does(client: Onceward) -> None:
    away = Onceward("http://127.0.0.1:1", retry=RETRY)
    with requests.Session() as session:
        session.mount(API, OnceAdapter("demo", away))
        with pytest.raises(requests.ConnectionError):
            session.post(f"{API}/orders", timeout=60)
    with (
        httpx.Client(transport=OnceTransport("demo", away)) as api,
        pytest.raises(httpx.ConnectError),
    ):
        api.post(f"{API}/orders")
    with requests.Session() as session:
        session.mount(API, OnceAdapter("demo-unsafe", client))
        answer = session.post(f"{API}/orders?script=drop", timeout=60)
    assert answer.status_code == 504
    assert answer.json()["code"] == "outcome-unknown"
