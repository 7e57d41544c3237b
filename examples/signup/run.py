#!/usr/bin/env python3
"""Signs people up through the gateway, under faults and kills, three times over; then counts.

    cargo build && python3 examples/signup/run.py --onceward target/debug/onceward
"""

import argparse
import base64
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services import Billing, Crm, Mails

HERE = Path(__file__).resolve().parent
# How many seconds anything is waited for that has to come.
PATIENCE = 120


class World:
    """The gateway and the signup API as processes that can be killed, and the services of others."""

    def __init__(self, onceward, folder):
        self.onceward, self.folder = onceward, folder
        names = ["GATEWAY", "GUARD", "APP", "SMTP", "BILLING", "CRM"]
        self.places = dict(zip(names, free_places(len(names))))
        secret = "whsec_" + base64.b64encode(os.urandom(24)).decode()
        self.environment = {
            **os.environ,
            **{name: f"127.0.0.1:{port}" for name, port in self.places.items()},
            "CRM_SECRET": secret,
            "APP_DATABASE": str(folder / "signup.db"),
            "ONCEWARD_URL": f"http://127.0.0.1:{self.places['GATEWAY']}",
        }
        self.mails = Mails(self.place("SMTP"))
        self.billing = Billing(self.place("BILLING"))
        self.crm = Crm(self.place("CRM"))
        self.gateway = self.app = None

    def place(self, name):
        return ("127.0.0.1", self.places[name])

    def start(self):
        config = str(HERE / "onceward.toml")
        self.gateway = self.process(self.onceward, "serve", "--allow-chaos", "--config", config)
        self.app = self.process(sys.executable, str(HERE / "app.py"))
        for name in ["GATEWAY", "GUARD", "APP"]:
            self.wait_for(name)

    def process(self, *command):
        log = open(self.folder / "processes.log", "ab")
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=log, stderr=log
        )

    def wait_for(self, name):
        def is_there():
            with socket.socket() as probe:
                return probe.connect_ex(self.place(name)) == 0

        until(f"{name} listens", is_there)

    def kill(self):
        """As a power cut would. Tells whether it ended the gateway, and not something before it."""
        for process in [self.gateway, self.app]:
            process.send_signal(signal.SIGKILL)
            process.wait()
        return self.gateway.returncode == -signal.SIGKILL

    def command(self, *arguments):
        done = subprocess.run(
            [self.onceward, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def free_places(count):
    """Ports that nobody has: all are bound at once, so that none comes twice."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [bound.getsockname()[1] for bound in sockets]
    for bound in sockets:
        bound.close()
    return ports


def until(what, look):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise SystemExit(f"waited in vain: {what}")


def sign_up(world, number, turn):
    """One caller: it asks with one key, until it is answered. In each round it has forgotten that it asked before,
    so its key is another."""
    body = json.dumps({"email": f"user{number}@example.com", "plan": "pro"}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": f"signup-{number}-{turn}"}
    url = f"http://127.0.0.1:{world.places['GUARD']}/signups"
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
                return answer.read()
        except urllib.error.HTTPError as refused:
            last = f"{refused.code} {refused.read().decode()}"
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
        time.sleep(0.05)
    raise SystemExit(f"signup {number} was never answered: {last}")


def sign_all_up(world, count, kills, turn, chance):
    """All callers at once, while the gateway and the API are killed; tells how often that met a caller who
    was not answered yet."""
    met = 0
    with ThreadPoolExecutor(8) as callers:
        answers = [callers.submit(sign_up, world, number, turn) for number in range(count)]
        # When so many were answered: where time is drawn, a quick machine is done before.
        for some in sorted(chance.sample(range(count), min(kills, count))):
            until(f"{some} are answered", lambda some=some: sum(it.done() for it in answers) >= some)
            is_under_way = not all(answer.done() for answer in answers)
            met += world.kill() and is_under_way
            world.start()
        for answer in answers:
            answer.result()
    return met


def settle(world):
    """Waits until nothing is under way; what is in doubt is resolved by the mail server's log."""
    resolved = 0
    open_states = ["pending", "delivering", "in_doubt"]

    def is_settled():
        nonlocal resolved
        is_open = False
        for state in open_states:
            for operation in json.loads(world.command("ls", "--state", state, "--json")):
                is_open = True
                if state == "in_doubt":
                    said = "done" if world.mails.has(operation["ids"]["message_id"]) else "not-sent"
                    world.command(
                        "resolve", operation["id"], "--as", said, "--reason", "the mail server's log"
                    )
                    resolved += 1
        return not is_open

    until("all is settled", is_settled)
    return resolved


def main():
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--onceward", default="onceward", help="the binary")
    flags.add_argument("--signups", type=int, default=20)
    flags.add_argument("--kills", type=int, default=3, help="in each of the three rounds")
    flags.add_argument("--seed", type=int, default=1)
    flags.add_argument("--json", action="store_true")
    flags = flags.parse_args()
    chance = random.Random(flags.seed)
    with tempfile.TemporaryDirectory() as folder:
        binary = flags.onceward
        if os.sep in binary:
            binary = str(Path(binary).resolve())
        world = World(binary, Path(folder))
        world.start()
        try:
            report = run(world, flags, chance)
        finally:
            world.kill()
    print(json.dumps(report) if flags.json else told(report))
    sys.exit(0 if report["ok"] else 1)


def run(world, flags, chance):
    kills = resolved = 0
    for turn in range(3):
        kills += sign_all_up(world, flags.signups, flags.kills, turn, chance)
        resolved += settle(world)
    database = sqlite3.connect(world.folder / "signup.db")
    users = [f"u-{number}" for (number,) in database.execute("SELECT id FROM users")]
    database.close()
    effects = {
        "users": users,
        "mails": [subject.removeprefix("Welcome, ") for subject in world.mails.subjects()],
        "contacts": world.crm.contacts(),
        "charges": [receipt["user"] for receipt in world.billing.charges.values()],
    }
    counts = {name: Counter(who) for name, who in effects.items()}
    once = Counter(users)
    return {
        "signups": flags.signups,
        "rounds": 3,
        "kills": kills,
        **{name: sum(count.values()) for name, count in counts.items()},
        "resolved": resolved,
        "calls_of_billing": world.billing.calls,
        "ok": len(users) == flags.signups and all(count == once for count in counts.values()),
    }


def told(report):
    lines = [f"{report['signups']} signups, {report['rounds']} times, {report['kills']} kills:"]
    for name in ["users", "mails", "contacts", "charges"]:
        lines.append(f"  {name:<9} {report[name]:>4}")
    lines.append(f"  {report['resolved']} mails were in doubt, and resolved by the server's log")
    lines.append("each once" if report["ok"] else "NOT each once")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
