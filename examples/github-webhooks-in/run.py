#!/usr/bin/env python3
"""GitHub delivers a push three times: the receiver is away, then crashes, and the gateway is killed."""

import hashlib
import hmac
import json
import sqlite3
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stage import Stage, ask, expect, until

SECRET = "it is a secret"


def deliver(url, delivery, push, secret=SECRET):
    """As GitHub does: the body is signed, and each delivery of one event has the same id."""
    body = json.dumps(push).encode()
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "X-GitHub-Event": "push",
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": f"sha256={signature}",
    }
    return ask(url, body, headers)[0]


with Stage(__file__, "GATEWAY", "APP") as stage:
    database = str(stage.folder / "app.db")
    stage.environment.update(APP_DATABASE=database, GITHUB_WEBHOOK_SECRET=SECRET)
    stage.start_gateway()
    url = stage.url("GATEWAY", "/in/github")
    push = {"ref": "refs/heads/main", "after": "6dcb09b"}

    def rows(table):
        connection = sqlite3.connect(database)
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
        connection.close()
        return count

    def state():
        (operation,) = json.loads(stage.command("ls", "--key", "72d3162e", "--json"))
        return operation["state"]

    # Nobody listens: the receiver is being deployed. GitHub has its 200 all the same, and it is on disk.
    expect("first delivery, the receiver is away", deliver(url, "72d3162e", push), 200)
    stage.kill_gateway()
    stage.start_gateway()
    expect("second delivery, after kill -9", deliver(url, "72d3162e", push), 200)

    # The receiver handles it and crashes before it says so; what starts next gets it again.
    app = [sys.executable, str(stage.here / "app.py")]
    receiver = stage.begin(*app, "--crash-once")
    until("it has handled the push, and crashed", lambda: receiver.poll() is not None)
    expect("deployments when it crashed", rows("deployments"), 1)
    stage.start("APP", *app)
    until("it is delivered", lambda: state() == "done")

    expect("third delivery, somebody pressed redeliver", deliver(url, "72d3162e", push), 200)
    expect("forged, with another secret", deliver(url, "90b1f4ac", push, secret="a guess"), 400)

    expect("deployments", rows("deployments"), 1)
    expect("webhooks in the inbox", rows("inbox"), 1)
    expect("another push", deliver(url, "a81c07de", {**push, "after": "7638417"}), 200)
    until("it is deployed", lambda: rows("deployments") == 2)
