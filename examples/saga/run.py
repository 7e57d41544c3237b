#!/usr/bin/env python3
"""Books two trips, with a kill in each. The second has no car, so its flight and its hotel are undone."""

import json
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stage import Stage, expect, listen, until

# What was done, by all agencies, in its order.
book = []


class Agency:
    """Books and cancels, each once for a key."""

    def __init__(self, name):
        self.name, self.lock, self.answers = name, threading.Lock(), {}
        # Done once, between a booking or a cancellation and its answer: which then never comes.
        self.trouble = {}

    def answer(self, method, path, headers, body):
        with self.lock:
            key = headers["Idempotency-Key"]
            if key not in self.answers:
                self.answers[key] = self.done(method, path, body)
            trouble = self.trouble.pop(method, None)
        if trouble:
            trouble()
            return None
        return self.answers[key]

    def done(self, method, path, body):
        if method == "DELETE":
            book.append(f"{self.name} cancelled")
            return 200, {}
        user = json.loads(body)["user"]
        if self.name == "car" and user == "cyd":
            return 422, {"error": "no car is free"}
        book.append(f"{self.name} booked")
        return 201, {"booking": f"{self.name}-{user}"}


with Stage(__file__, "GATEWAY", "HOTEL", "FLIGHT", "CAR") as stage:
    agencies = {name: Agency(name) for name in ["hotel", "flight", "car"]}
    for name, agency in agencies.items():
        listen(stage.ports[name.upper()], agency.answer)
    stage.start_gateway()

    def book_trip(trip, user):
        """Starts it twice, as who is not sure does; restarts the gateway when it is killed."""
        book.clear()
        program = [sys.executable, str(stage.here / "trip.py"), trip, user]
        callers = [stage.begin(*program, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        until("the gateway is killed", lambda: stage.gateway.poll() is not None)
        stage.start_gateway()
        return ", ".join(caller.communicate()[0].strip() for caller in callers)

    agencies["flight"].trouble["POST"] = stage.kill_gateway
    expect("a trip started twice, killed at the flight", book_trip("trip-1", "ada"), "done, done")
    expect("what was done", ", ".join(book), "hotel booked, flight booked, car booked")

    agencies["hotel"].trouble["DELETE"] = stage.kill_gateway
    expect("one without a car, killed while undoing", book_trip("trip-2", "cyd"), "unwound, unwound")
    expect("what was done", ", ".join(book), "hotel booked, flight booked, flight cancelled, hotel cancelled")

    print(stage.command("saga", "ls"))
