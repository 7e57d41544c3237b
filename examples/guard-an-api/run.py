#!/usr/bin/env python3
"""Orders the same several times over, bare and through the guard, and through a kill.

`--api express` takes the API in Express, else it is that in FastAPI.
"""

import json
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stage import Stage, ask, expect


def order(where, key, item):
    """One call of a client that is the same before and behind the guard."""
    headers = {"Authorization": "Bearer a client's", "Idempotency-Key": key}
    return ask(f"{where}/orders", {"item": item}, headers)


def order_and_hang_up(port, key, item):
    """A client that loses patience: its request is sent, and it does not wait to hear whether it was even read."""
    body = json.dumps({"item": item}).encode()
    head = (
        f"POST /orders HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer a client's\r\n"
        f"Idempotency-Key: {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(head.encode() + body)


with Stage(__file__, "GATEWAY", "GUARD", "API") as stage:
    stage.environment["PORT"] = str(stage.ports["API"])
    if "express" in sys.argv:
        stage.start("API", "node", str(stage.here / "api.js"))
    else:
        uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", str(stage.here), "api:app"]
        stage.start("API", *uvicorn, "--port", str(stage.ports["API"]))
    stage.start_gateway()
    api, guard = stage.url("API"), stage.url("GUARD")

    def orders(item):
        return sum(order["item"] == item for order in json.loads(ask(f"{api}/orders")[2]))

    for _ in range(3):
        order(api, "order-1", "bare")
    expect("three times, bare", orders("bare"), 3)

    answers = [order(guard, "order-2", "guarded") for _ in range(3)]
    expect("three times, guarded", orders("guarded"), 1)
    expect("different answers to these three", len({body for _, _, body in answers}), 1)

    with ThreadPoolExecutor(8) as clients:
        at_once = list(clients.map(lambda _: order(guard, "order-3", "at once"), range(8)))
    expect("eight at once", orders("at once"), 1)
    expect("different answers to these eight", len({body for _, _, body in at_once}), 1)

    order_and_hang_up(stage.ports["GUARD"], "order-4", "hung up")
    expect("asked again by who hung up", order(guard, "order-4", "hung up")[0], 201)
    expect("hung up, then again", orders("hung up"), 1)

    stage.kill_gateway()
    stage.start_gateway()
    status, headers, body = order(guard, "order-2", "guarded")
    expect("after kill -9, from memory", headers["Idempotent-Replayed"], "true")
    expect("after kill -9, the same bytes", body == answers[0][2], True)

    status, _, body = order(guard, "order-2", "another")
    expect("the same key for another order", f"{status} {json.loads(body)['code']}", "409 key-mismatch")
    expect("of which there are", orders("another"), 0)
