"""A shop whose order and whose call to the warehouse are one transaction, in SQLAlchemy.

python3 shop.py CUSTOMER COUNT
"""

import json
import os
import sys

from sqlalchemy import Connection, MetaData, Table, create_engine, event, insert

database = os.environ.get("SHOP_DATABASE", "shop.db")
engine = create_engine(f"sqlite:///{database}", connect_args={"timeout": 30})
metadata = MetaData()


@event.listens_for(engine, "connect")
def leave_transactions_to_us(connection, _):
    connection.isolation_level = None


@event.listens_for(engine, "begin")
def begin_as_a_writer(connection):
    # A transaction that reads before it writes would be refused where another wrote meanwhile.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


# `onceward sql ddl --dialect sqlite` made the outbox; orders are the shop's own.
outbox = Table("onceward_outbox", metadata, autoload_with=engine)
orders = Table("orders", metadata, autoload_with=engine)


def enqueue(db: Connection, route: str, path: str, *, key: str, document: dict, subject: str) -> None:
    """A call that leaves if, and only if, the transaction commits."""
    db.execute(
        insert(outbox).values(
            route=route,
            path=path,
            key=key,
            headers=json.dumps({"content-type": "application/json"}),
            body=json.dumps(document).encode(),
            subject=subject,
        )
    )


def place_order(customer: str, item: str) -> int:
    with engine.begin() as db:
        order = db.execute(insert(orders).values(customer=customer, item=item)).inserted_primary_key[0]
        pick = {"order": order, "customer": customer, "item": item}
        enqueue(db, "warehouse", "/picks", key=f"pick-{order}", document=pick, subject=customer)
        if item == "sold out":
            raise LookupError(item)
    return order


if __name__ == "__main__":
    customer, count = sys.argv[1], int(sys.argv[2])
    for number in range(count):
        try:
            place_order(customer, "sold out" if number % 3 == 2 else f"item-{number}")
        except LookupError:
            # It was rolled back, and with it the call.
            continue
