"""stripe-python, unchanged but for its base URL: makes the calls that it is told on its input,
one JSON document a line, and tells of each what its caller would see."""

import json
import sys

import stripe


def told(call):
    client = stripe.StripeClient(
        "sk_test_1",
        base_addresses={"api": call["base"]},
        max_network_retries=call["retries"],
    )
    options = {"idempotency_key": call["key"]} if call.get("key") else {}
    try:
        params = {"amount": call["amount"], "currency": "eur"}
        made = client.v1.payment_intents.create(params, options=options)
        return {"id": made.id, "amount": made.amount}
    except stripe.StripeError as error:
        return {
            "error": type(error).__name__,
            "status": error.http_status,
            "code": error.code,
        }


for line in sys.stdin:
    print(json.dumps(told(json.loads(line))), flush=True)
