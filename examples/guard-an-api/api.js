// An API that knows no idempotency keys: two posts are two orders.
//
// PORT=3000 node api.js

const express = require("express");

const app = express();
const orders = [];

app.use(express.json());

app.post("/orders", (request, response) => {
  orders.push({ id: orders.length + 1, ...request.body });
  response.status(201).json(orders.at(-1));
});

app.get("/orders", (_request, response) => {
  response.json(orders);
});

app.listen(process.env.PORT ?? 3000, "127.0.0.1");
