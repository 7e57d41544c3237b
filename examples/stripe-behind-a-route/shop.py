"""A shop that charges an invoice with stripe-python as it is: only where it sends to is another.

python3 shop.py INVOICE AMOUNT
"""

import os
import sys

import stripe

stripe.api_key = "sk_test_none"
stripe.api_base = os.environ.get("ONCEWARD_URL", "http://127.0.0.1:7077") + "/to/stripe"
# The SDK's own: it asks again with the same key, also while the gateway is away.
stripe.max_network_retries = 8


def charge(invoice: str, amount: int) -> stripe.PaymentIntent:
    """The key is the invoice: however often this is called, it is one payment."""
    return stripe.PaymentIntent.create(amount=amount, currency="eur", idempotency_key=invoice)


if __name__ == "__main__":
    payment = charge(sys.argv[1], int(sys.argv[2]))
    replayed = payment.last_response.headers["Idempotent-Replayed"]
    print(f"{payment.id} {payment.status}, from memory: {replayed}")
