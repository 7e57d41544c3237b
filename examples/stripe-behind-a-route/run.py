#!/usr/bin/env python3
"""Charges two invoices, and again: one loses its answer, during the other the gateway is killed."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stage import Stage, expect, listen, until
from stripe_api import Stripe

with Stage(__file__, "GATEWAY", "STRIPE") as stage:
    stripe = Stripe()
    listen(stage.ports["STRIPE"], stripe.answer)
    stage.start_gateway()

    # Stripe takes the money, and its answer never comes.
    stripe.trouble["invoice-1"] = lambda: None
    said = stage.python("shop.py", "invoice-1", "500")
    expect("invoice-1, its answer lost", said, "pi_1 succeeded, from memory: false")

    # Stripe takes the money, and the gateway is killed before it hears of it. The shop knows nothing of that.
    stripe.trouble["invoice-2"] = stage.kill_gateway
    program = [sys.executable, str(stage.here / "shop.py"), "invoice-2", "700"]
    shop = stage.begin(*program, stdout=subprocess.PIPE, text=True)
    until("the gateway is killed", lambda: stage.gateway.poll() is not None)
    stage.start_gateway()
    said = shop.communicate()[0].strip()
    expect("invoice-2, the gateway killed", said.split(",")[0], "pi_2 succeeded")

    for invoice, amount, payment in [("invoice-1", "500", "pi_1"), ("invoice-2", "700", "pi_2")]:
        said = stage.python("shop.py", invoice, amount)
        expect(f"{invoice} again", said, f"{payment} succeeded, from memory: true")

    expect("payments at Stripe", len(stripe.payments), 2)
    expect("each asked for more than once", all(stripe.calls.count(key) > 1 for key in stripe.payments), True)
