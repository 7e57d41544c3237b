"""An API that knows no idempotency keys: two posts are two orders.

uvicorn api:app --port 3000
"""

from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
orders: list[dict] = []


class Order(BaseModel):
    item: str
    quantity: int = 1


@app.post("/orders", status_code=201)
async def create(order: Order) -> dict:
    orders.append({"id": len(orders) + 1, **order.model_dump()})
    return orders[-1]


@app.get("/orders")
async def every() -> list[dict]:
    return orders
