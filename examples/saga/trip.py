"""Books a trip: a hotel, a flight and a car, or nothing of them.

python3 trip.py TRIP USER
"""

import json
import os
import sys
import time
import urllib.error
import urllib.request

GATEWAY = os.environ.get("ONCEWARD_URL", "http://127.0.0.1:7077")
# A minute, and no more: then somebody has to look.
TRIES_MAX = 300


def step(name, order):
    """A booking, and what undoes it; the number of a booking is in its answer."""
    return {
        "name": name,
        "to": f"{name}/bookings",
        "body": order,
        "compensate": {"method": "DELETE", "path": f"/bookings/{{{{steps.{name}.body/booking}}}}"},
    }


def trip(user):
    return {
        "input": {"user": user},
        "steps": [
            step("hotel", {"user": "{{input/user}}"}),
            # The flight is told of the hotel: by the answer that there was.
            step("flight", {"user": "{{input/user}}", "hotel": "{{steps.hotel.body/booking}}"}),
            step("car", {"user": "{{input/user}}"}),
        ],
    }


def call(path, document=None, key=None):
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Idempotency-Key"] = key
    body = json.dumps(document).encode() if document else None
    request = urllib.request.Request(GATEWAY + path, body, headers)
    for _ in range(TRIES_MAX):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            if refused.status < 500:
                raise
        except OSError:
            pass
        # The gateway is away. Asking again is harmless: the saga has a key.
        time.sleep(0.2)
    raise SystemExit("the gateway did not come back")


if __name__ == "__main__":
    saga = call("/v1/sagas", trip(sys.argv[2]), key=sys.argv[1])
    while saga["state"] in ("running", "unwinding"):
        time.sleep(0.1)
        saga = call(f"/v1/sagas/{saga['id']}")
    print(saga["state"])
