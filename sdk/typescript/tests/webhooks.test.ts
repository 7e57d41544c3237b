import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { verifyWebhook, type WebhookRejectedError, type WebhookScheme } from "../src/index.js";
import { signWebhook } from "../src/testing.js";

interface Example {
  scheme: WebhookScheme;
  secret: string;
  at: number;
  signs_time: boolean;
  id: string | null;
  body: string;
  headers: Record<string, string>;
}

/** The providers' own examples; both SDKs are held to them. */
const EXAMPLES = JSON.parse(
  readFileSync(
    process.env["TEST_WEBHOOKS"] ?? new URL("../../webhooks.json", import.meta.url),
    "utf8",
  ),
) as Example[];

function verified(
  example: Example,
  more: { body?: unknown; secrets?: string[]; late?: number } = {},
) {
  const { scheme, at, headers, secret } = example;
  const now = new Date((at + (more.late ?? 0)) * 1000);
  const body = (more.body ?? example.body) as string;
  return verifyWebhook(body, headers, more.secrets ?? secret, { scheme, now });
}

const because = (reason: string) => (error: unknown) =>
  (error as WebhookRejectedError).reason === reason;

for (const example of EXAMPLES) {
  test(`${example.scheme} is verified as its provider signs it, and nothing else is`, async () => {
    const said = await verified(example);
    assert.equal(said.id, example.id ?? undefined);
    assert.equal(said.secret, 0);
    assert.ok(await verified(example, { body: new TextEncoder().encode(example.body) }));
    await assert.rejects(
      verified(example, { body: `${example.body} ` }),
      because("signature_mismatch"),
    );
    if (!example.signs_time) return;
    assert.ok(await verified(example, { late: 300 }));
    await assert.rejects(verified(example, { late: 301 }), because("too_old"));
    await assert.rejects(verified(example, { late: -301 }), because("too_new"));
  });

  test(`${example.scheme} takes an old and a new secret, and tells which one fitted`, async () => {
    const isStandard = ["standard-webhooks", "svix"].includes(example.scheme);
    const other = isStandard ? `whsec_${"A".repeat(32)}` : "another";
    assert.equal((await verified(example, { secrets: [other, example.secret] })).secret, 1);
    await assert.rejects(verified(example, { secrets: [other] }), because("signature_mismatch"));
  });

  test(`${example.scheme} says which header is missing`, async () => {
    const name = Object.keys(example.headers).find((it) => /signature|hmac/i.test(it)) ?? "";
    const { [name]: _, ...rest } = example.headers;
    const without = { ...example, headers: rest };
    await assert.rejects(verified(without), because("header_missing"));
    const empty = { ...example, headers: { ...rest, [name]: "" } };
    await assert.rejects(verified(empty), because("header_unreadable"));
  });
}

test("a body that was parsed is told to be one, and the mend with it", async () => {
  const [example] = EXAMPLES;
  assert.ok(example);
  for (const body of [JSON.parse(example.body), null, 7]) {
    await assert.rejects(
      verifyWebhook(body, example.headers, example.secret),
      /raw body.*take the bytes before any parser/,
    );
  }
});

test("what the double signs is verified, by headers of any kind", async () => {
  const secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
  const headers = await signWebhook('{"a":1}', secret, { id: "msg_1" });
  for (const kind of [headers, new Headers(headers), Object.entries(headers)] as const) {
    assert.equal((await verifyWebhook('{"a":1}', kind, [secret])).id, "msg_1");
  }
  const doubled = [...Object.entries(headers), ["Webhook-Id", "msg_2"]] as [string, string][];
  await assert.rejects(verifyWebhook('{"a":1}', doubled, secret), because("header_unreadable"));
});

test("a secret that cannot be one is refused before anything is verified", async () => {
  for (const secret of ["", "whsec_", "whsec_!", "whsec_AAAA", "whpk_AAAA", "whsk_AAAA"]) {
    await assert.rejects(verifyWebhook("", {}, secret), TypeError, secret);
  }
  await assert.rejects(verifyWebhook("", {}, []), TypeError);
});
