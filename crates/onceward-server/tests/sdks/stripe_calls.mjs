// stripe-node, unchanged but for its host: makes the calls that it is told on its input, one JSON
// document a line, and tells of each what its caller would see.

import { createInterface } from "node:readline";
import Stripe from "stripe";

async function told({ base, retries, key, amount }) {
  const url = new URL(base);
  const stripe = new Stripe("sk_test_1", {
    host: url.hostname,
    port: url.port,
    protocol: "http",
    maxNetworkRetries: retries,
    telemetry: false,
  });
  const options = key ? { idempotencyKey: key } : {};
  try {
    const made = await stripe.paymentIntents.create({ amount, currency: "eur" }, options);
    // What is no payment must not come here: the SDK takes any document without `error` for one.
    return { id: made.id, amount: made.amount };
  } catch (error) {
    return { error: error.type ?? error.name, status: error.statusCode, code: error.code };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await told(JSON.parse(line))));
}
