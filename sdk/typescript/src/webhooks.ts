/**
 * Webhooks, verified: what is signed are the bytes as they came, so that a body that was parsed and
 * written again cannot be.
 */

import { OncewardError } from "./errors.js";
import { fromBase64, fromHex } from "./units.js";

/** How far a time of signing may be from now. */
const TOLERANCE_MS = 5 * 60_000;

/** Signatures that are tried, and secrets, at most. */
const TRIED_MAX = 16;

/** From this number on a timestamp is in milliseconds: as seconds it would be in the year 5138. */
const MILLISECONDS_FROM = 100_000_000_000;

/** How a provider signs. */
export type WebhookScheme =
  | "standard-webhooks"
  | "svix"
  | "stripe"
  | "github"
  | "slack"
  | "shopify";

/** What is said beside the secrets. */
export interface VerifyOptions {
  /** Standard Webhooks where nothing is said. */
  scheme?: WebhookScheme;
  /** How far the time of signing may be from now, in milliseconds: 5 minutes where nothing is said. */
  toleranceMs?: number;
  /** What time it is; for tests. */
  now?: Date;
}

/** A webhook that its provider signed. */
export interface Verified {
  /**
   * Its id, where the scheme has one in a header: the key to make nothing of a second arrival. GitHub and
   * Shopify do not sign theirs: whoever has a webhook of theirs can send it again under another.
   */
  id: string | undefined;
  /** When it was signed, where the scheme says. */
  signedAt: Date | undefined;
  /** Which secret fitted, counted from 0. */
  secret: number;
}

/** Why a webhook was refused; `reason` is a word that stays. */
export class WebhookRejectedError extends OncewardError {
  constructor(
    readonly reason:
      | "header_missing"
      | "header_unreadable"
      | "too_old"
      | "too_new"
      | "too_many_signatures"
      | "signature_mismatch",
    message: string,
  ) {
    super(message, "fix-request");
  }
}

/** Headers as frameworks have them. */
export type WebhookHeaders =
  | Headers
  | Iterable<readonly [string, string]>
  | Record<string, string | readonly string[] | undefined>;

type Bytes = Uint8Array<ArrayBuffer>;

/** What a webhook says of its signing, read and not believed yet. */
interface Said {
  signatures: { kind: "shared" | "public"; bytes: Bytes }[];
  signed: Bytes;
  signedAt: Date | undefined;
  id: string | undefined;
}

/**
 * Verifies that `payload` is what its provider signed, not long ago, with one of `secrets`.
 *
 * @param payload the raw body: bytes, or their text. Not what a parser made of it.
 * @param secrets one, or several while they are rotated.
 * @throws {WebhookRejectedError} it is not.
 * @throws {TypeError} the body was parsed, or a secret cannot be one.
 */
export async function verifyWebhook(
  payload: string | Uint8Array | ArrayBuffer,
  headers: WebhookHeaders,
  secrets: string | readonly string[],
  options: VerifyOptions = {},
): Promise<Verified> {
  const scheme = options.scheme ?? "standard-webhooks";
  const body = rawBytes(payload);
  const all = typeof secrets === "string" ? [secrets] : [...secrets];
  if (all.length === 0 || all.length > TRIED_MAX || all.includes("")) {
    throw new TypeError(`there are 1 to ${TRIED_MAX} secrets, and none is empty`);
  }
  const keys = await Promise.all(all.map((secret) => keyOf(scheme, secret)));
  const said = READ[scheme](lines(headers), body);
  if (said.signatures.length > TRIED_MAX) {
    throw new WebhookRejectedError(
      "too_many_signatures",
      `it has more than ${TRIED_MAX} signatures`,
    );
  }
  checkTime(said.signedAt, options.now ?? new Date(), options.toleranceMs ?? TOLERANCE_MS);
  for (const [secret, { kind, key }] of keys.entries()) {
    const ofItsKind = said.signatures.filter((it) => it.kind === kind).map((it) => it.bytes);
    const fits = kind === "shared" ? isOneOf : isSignedBy;
    if (await fits(key, ofItsKind, said.signed)) {
      return { id: said.id, signedAt: said.signedAt, secret };
    }
  }
  throw new WebhookRejectedError(
    "signature_mismatch",
    `none of ${said.signatures.length} signatures fits any of ${keys.length} secrets: is the body as it came, byte by byte?`,
  );
}

/** Whether one of `signatures` is that of a shared key: one pass over the body, however many a stranger sends. */
async function isOneOf(key: CryptoKey, signatures: Bytes[], signed: Bytes): Promise<boolean> {
  const wanted = new Uint8Array(await crypto.subtle.sign("HMAC", key, signed));
  return signatures.some((signature) => isEqual(signature, wanted));
}

/** In constant time, and the whole of it. */
function isEqual(a: Bytes, b: Bytes): boolean {
  let differs = a.length ^ b.length;
  for (const [at, byte] of b.entries()) differs |= byte ^ (a[at] ?? 0);
  return differs === 0;
}

async function isSignedBy(key: CryptoKey, signatures: Bytes[], signed: Bytes): Promise<boolean> {
  for (const signature of signatures) {
    if (await crypto.subtle.verify("Ed25519", key, signature, signed)) return true;
  }
  return false;
}

/** The bytes of a raw body, or a word about the commonest mistake. */
function rawBytes(payload: unknown): Bytes {
  if (typeof payload === "string") return new TextEncoder().encode(payload);
  if (payload instanceof Uint8Array) return Uint8Array.from(payload);
  if (payload instanceof ArrayBuffer) return new Uint8Array(payload);
  throw new TypeError(
    `a webhook is verified by its raw body, and this is ${payload === null ? "null" : `a parsed ${typeof payload}`}: take the bytes before any parser, as with express.raw({ type: "*/*" }) or await request.text()`,
  );
}

/** One line for each name, in lower case. */
function lines(headers: WebhookHeaders): Map<string, string> {
  const isList = typeof (headers as Iterable<unknown>)[Symbol.iterator] === "function";
  const pairs = isList
    ? (headers as Iterable<readonly [string, string]>)
    : Object.entries(headers as Record<string, string | readonly string[] | undefined>);
  const found = new Map<string, string>();
  for (const [name, value] of pairs) {
    if (value === undefined) continue;
    const several = typeof value === "string" ? [value] : value;
    if (several.length > 1 || found.has(name.toLowerCase())) {
      throw new WebhookRejectedError("header_unreadable", `there is more than one line of ${name}`);
    }
    found.set(name.toLowerCase(), String(several[0] ?? "").trim());
  }
  return found;
}

function header(headers: Map<string, string>, ...names: string[]): [string, string] {
  for (const name of names) {
    const value = headers.get(name);
    if (value !== undefined) return [name, value];
  }
  throw new WebhookRejectedError("header_missing", `there is no header ${names.join(" or ")}`);
}

function unreadable(name: string, wanted: string): WebhookRejectedError {
  return new WebhookRejectedError("header_unreadable", `the header ${name} is not ${wanted}`);
}

/** A time in digits alone: what is signed is their text, so that no other way to write it fits. */
function timeOf(name: string, text: string): Date {
  if (!/^\d{1,15}$/.test(text)) throw unreadable(name, "seconds since 1970, in digits");
  const number = Number(text);
  return new Date(number < MILLISECONDS_FROM ? number * 1000 : number);
}

function checkTime(signedAt: Date | undefined, now: Date, toleranceMs: number): void {
  if (!signedAt) return;
  const age = now.getTime() - signedAt.getTime();
  const seconds = Math.round(Math.abs(age) / 1000);
  if (age > toleranceMs) {
    throw new WebhookRejectedError("too_old", `it was signed ${seconds} s ago`);
  }
  if (-age > toleranceMs) {
    throw new WebhookRejectedError("too_new", `it was signed ${seconds} s ahead of our clock`);
  }
}

function joined(...parts: (string | Bytes)[]): Bytes {
  const pieces = parts.map((part) =>
    typeof part === "string" ? new TextEncoder().encode(part) : part,
  );
  const whole = new Uint8Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}

function shared(bytes: Bytes | undefined, name: string, wanted: string): Said["signatures"] {
  if (!bytes || bytes.length === 0) throw unreadable(name, wanted);
  return [{ kind: "shared", bytes }];
}

function standard(beginnings: string[]) {
  return (headers: Map<string, string>, body: Bytes): Said => {
    const field = (name: string) =>
      header(headers, ...beginnings.map((begin) => `${begin}${name}`));
    const [, id] = field("id");
    const [timeName, time] = field("timestamp");
    const [name, text] = field("signature");
    const signatures: Said["signatures"] = [];
    for (const word of text.split(" ")) {
      const [version, coded = ""] = word.split(",", 2);
      const bytes = fromBase64(coded);
      const kind = version === "v1" ? "shared" : version === "v1a" ? "public" : undefined;
      if (kind && bytes) signatures.push({ kind, bytes });
    }
    if (signatures.length === 0) throw unreadable(name, "`v1,` and base64");
    return {
      signatures,
      signed: joined(`${id}.${time}.`, body),
      signedAt: timeOf(timeName, time),
      id,
    };
  };
}

/** What each provider signs, and where it says so. */
const READ: Record<WebhookScheme, (headers: Map<string, string>, body: Bytes) => Said> = {
  "standard-webhooks": standard(["webhook-"]),
  svix: standard(["svix-", "webhook-"]),
  stripe(headers, body) {
    const [name, text] = header(headers, "stripe-signature");
    const wanted = "`t=` and seconds, `v1=` and hexadecimal digits";
    const fields = text.split(",").map((field) => field.trim().split("=", 2));
    const times = fields.filter(([field]) => field === "t");
    const time = times[0]?.[1];
    if (times.length !== 1 || time === undefined) throw unreadable(name, wanted);
    // Only `v1` counts: `v0` is of test events.
    const signatures = fields.flatMap(([field, value = ""]) => {
      const bytes = field === "v1" ? fromHex(value) : undefined;
      return bytes && bytes.length > 0 ? [{ kind: "shared" as const, bytes }] : [];
    });
    if (signatures.length === 0) throw unreadable(name, wanted);
    const signedAt = timeOf(name, time);
    return { signatures, signed: joined(`${time}.`, body), signedAt, id: undefined };
  },
  github(headers, body) {
    const [name, text] = header(headers, "x-hub-signature-256");
    const bytes = text.startsWith("sha256=") ? fromHex(text.slice(7)) : undefined;
    const signatures = shared(bytes, name, "`sha256=` and hexadecimal digits");
    return { signatures, signed: body, signedAt: undefined, id: headers.get("x-github-delivery") };
  },
  slack(headers, body) {
    const [timeName, time] = header(headers, "x-slack-request-timestamp");
    const [name, text] = header(headers, "x-slack-signature");
    const bytes = text.startsWith("v0=") ? fromHex(text.slice(3)) : undefined;
    const signatures = shared(bytes, name, "`v0=` and hexadecimal digits");
    const signed = joined(`v0:${time}:`, body);
    return { signatures, signed, signedAt: timeOf(timeName, time), id: undefined };
  },
  shopify(headers, body) {
    const [name, text] = header(headers, "x-shopify-hmac-sha256", "shopify-hmac-sha256");
    const signatures = shared(fromBase64(text), name, "a digest in base64");
    return {
      signatures,
      signed: body,
      signedAt: undefined,
      id: headers.get("x-shopify-webhook-id"),
    };
  },
};

/** A secret as the scheme writes it. */
async function keyOf(
  scheme: WebhookScheme,
  secret: string,
): Promise<{ kind: "shared" | "public"; key: CryptoKey }> {
  if (scheme !== "standard-webhooks" && scheme !== "svix") {
    return { kind: "shared", key: await hmacKey(new TextEncoder().encode(secret)) };
  }
  if (secret.startsWith("whsk_")) {
    throw new TypeError("that is the sender's private key: a receiver has `whpk_…`");
  }
  if (secret.startsWith("whpk_")) {
    const bytes = fromBase64(secret.slice(5));
    if (bytes?.length !== 32) throw new TypeError("`whpk_` stands before the base64 of 32 bytes");
    const key = await crypto.subtle.importKey("raw", bytes, "Ed25519", false, ["verify"]);
    return { kind: "public", key };
  }
  const bytes = fromBase64(secret.replace(/^whsec_/, ""));
  if (!bytes || bytes.length < 16 || bytes.length > 128) {
    throw new TypeError("the secret is not `whsec_` and the base64 of 24 to 64 bytes");
  }
  return { kind: "shared", key: await hmacKey(bytes) };
}

async function hmacKey(bytes: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
}
