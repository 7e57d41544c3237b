// The official library of Standard Webhooks: signs or verifies what it is told on its input, one
// JSON document a line.

import { createInterface } from "node:readline";
import { Webhook } from "standardwebhooks";

function told({ do: wanted, secret, id, timestamp, headers, body }) {
  const webhook = new Webhook(secret);
  const text = Buffer.from(body, "base64").toString();
  if (wanted === "sign") {
    return { signature: webhook.sign(id, new Date(timestamp * 1000), text) };
  }
  try {
    webhook.verify(text, headers);
    return { verified: true };
  } catch (error) {
    return { verified: false, why: String(error) };
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(told(JSON.parse(line))));
}
