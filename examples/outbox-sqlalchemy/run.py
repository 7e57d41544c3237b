#!/usr/bin/env python3
"""Four customers order at once while the shop and the gateway are killed; then each order was picked once."""

import json
import sqlite3
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stage import Stage, expect, kill, listen, until

CUSTOMERS = ["ada", "bob", "cyd", "dan"]
ORDERS = 100


class Warehouse:
    """Picks once for a key, and loses the answer to every fifth pick."""

    def __init__(self):
        self.lock, self.picks, self.calls = threading.Lock(), {}, 0

    def answer(self, method, path, headers, body):
        with self.lock:
            self.calls += 1
            is_new = headers["Idempotency-Key"] not in self.picks
            pick = self.picks.setdefault(headers["Idempotency-Key"], json.loads(body))
            if is_new and len(self.picks) % 5 == 0:
                return None
        return 201, pick


with Stage(__file__, "GATEWAY", "WAREHOUSE") as stage:
    path = str(stage.folder / "shop.db")
    stage.environment["SHOP_DATABASE"] = path
    shop = sqlite3.connect(path, isolation_level=None)
    shop.execute("PRAGMA journal_mode = WAL")
    columns = "id INTEGER PRIMARY KEY AUTOINCREMENT, customer TEXT NOT NULL, item TEXT NOT NULL"
    shop.execute(f"CREATE TABLE orders ({columns})")
    shop.executescript(stage.command("sql", "ddl", "--dialect", "sqlite"))

    def rows(query):
        return shop.execute(query).fetchall()

    warehouse = Warehouse()
    listen(stage.ports["WAREHOUSE"], warehouse.answer)
    stage.start_gateway()
    program = str(stage.here / "shop.py")
    shops = [stage.begin(sys.executable, program, customer, str(ORDERS)) for customer in CUSTOMERS]

    # In the midst of it: some order is always half done.
    until("the first have ordered", lambda: rows("SELECT count(*) FROM orders") >= [(20,)])
    kill(shops[0])
    for count in (10, 60, 110):
        until("more is picked", lambda wanted=count: len(warehouse.picks) >= wanted)
        stage.kill_gateway()
        stage.start_gateway()
    for process in shops[1:]:
        process.wait()

    until("the outbox is empty", lambda: rows("SELECT count(*) FROM onceward_outbox") == [(0,)])
    committed = rows("SELECT id, customer, item FROM orders ORDER BY id")
    until("every order is picked", lambda: len(warehouse.picks) >= len(committed))

    expect("orders of three customers", sum(customer != "ada" for _, customer, _ in committed), 3 * 67)
    expect("picks without an order", len(warehouse.picks) - len(committed), 0)
    picks = [(pick["order"], pick["customer"], pick["item"]) for pick in warehouse.picks.values()]
    expect("each order picked once", sorted(picks) == committed, True)
    in_order = all(
        [pick for pick in picks if pick[1] == customer] == [row for row in committed if row[1] == customer]
        for customer in CUSTOMERS
    )
    expect("each customer's in their order", in_order, True)
    expect("the warehouse was asked more often", warehouse.calls > len(picks), True)
