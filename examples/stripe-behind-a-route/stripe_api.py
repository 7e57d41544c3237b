"""As much of Stripe's API as a payment needs: what a key was answered first, it is answered always."""

import threading
import urllib.parse


class Stripe:
    def __init__(self):
        self.lock = threading.Lock()
        self.payments = {}
        self.calls = []
        # What is done, by key, once the payment is made and before it is answered: which then is not.
        self.trouble = {}

    def answer(self, method, path, headers, body):
        key = headers["Idempotency-Key"]
        form = dict(urllib.parse.parse_qsl(body.decode()))
        with self.lock:
            self.calls.append(key)
            if key not in self.payments:
                self.payments[key] = {
                    "id": f"pi_{len(self.payments) + 1}",
                    "object": "payment_intent",
                    "amount": int(form["amount"]),
                    "currency": form["currency"],
                    "status": "succeeded",
                }
            payment, trouble = self.payments[key], self.trouble.pop(key, None)
        if trouble:
            trouble()
            return None
        return 200, payment
