/** The claims of the double: words are weighed as the gateway weighs them. */

import type { Claim, Effects } from "../shapes.js";
import { readDuration } from "../units.js";
import { refuse } from "./refuse.js";

/** Nobody is asked to stay away for longer where somebody has it in hand. */
const BUSY_MS = 10;

const LEASE_MS = 30_000;

type Stand = "acquired" | "done" | "in_doubt" | "released" | "lapsed";

/** What a word about how it ended is worth: it is believed, was said before, or comes too late. */
type Worth = "holds" | "said" | "stale";

const WORTH: Record<string, Record<Stand, Worth>> = {
  complete: {
    acquired: "holds",
    in_doubt: "holds",
    lapsed: "holds",
    done: "said",
    released: "stale",
  },
  release: {
    acquired: "holds",
    in_doubt: "holds",
    released: "said",
    lapsed: "said",
    done: "stale",
  },
  giveUp: { acquired: "holds", in_doubt: "said", lapsed: "said", done: "stale", released: "stale" },
  renew: {
    acquired: "holds",
    in_doubt: "stale",
    lapsed: "stale",
    done: "stale",
    released: "stale",
  },
};

interface Known {
  key: string;
  stand: Stand;
  attempt: number;
  effects: Effects;
  operation: string;
  fence: number;
  leaseUntil: number;
  holder: string | undefined;
  fingerprint: string | undefined;
  nonce: string | undefined;
  outcome: unknown;
  ok: boolean;
  /** When it may be begun again that was given back for later. */
  freeAt: number;
  /** Whoever waits for it. */
  waiting: Set<() => void>;
}

type Words = Record<string, unknown>;

/** All claims, by scope and key. */
export class FakeClaims {
  readonly #known = new Map<string, Known>();
  #fence = Date.now();

  constructor(private readonly newOperation: () => string) {}

  /** Ends the lease of a claim, as time does. */
  lapse(scope: string, key: string): void {
    const known = this.#known.get(placeOf(scope, key));
    if (known?.stand !== "acquired") throw new Error(`${key} is in nobody's hand`);
    known.stand = lapsed(known);
    wake(known);
  }

  /** What is answered; without a verb it is only looked at. */
  async answer(
    scope: string,
    key: string,
    verb: string | undefined,
    words: Words,
  ): Promise<Response> {
    if (verb === "begin") return this.#begin(scope, key, words);
    const known = this.#known.get(placeOf(scope, key));
    if (!known) return noSuchClaim(key);
    if (verb === undefined) {
      const status = known.stand === "acquired" ? "busy" : known.stand;
      return Response.json({ ...shown(known), status });
    }
    return said(known, verb, words);
  }

  async #begin(scope: string, key: string, words: Words): Promise<Response> {
    const end = Date.now() + (readDuration(words["wait"]) ?? 0);
    const fingerprint = textOf(words["fingerprint"]);
    for (;;) {
      const known = this.#known.get(placeOf(scope, key));
      if (!known) return this.#acquire(scope, key, words, undefined);
      if (fingerprint !== undefined && (known.fingerprint ?? fingerprint) !== fingerprint) {
        return mismatch();
      }
      const isIts = words["nonce"] !== undefined && words["nonce"] === known.nonce;
      const isHeld = known.stand === "acquired" && !isIts;
      const freeIn = known.stand === "released" ? known.freeAt - Date.now() : 0;
      if (!isHeld && freeIn <= 0) {
        const isFree = known.stand === "released" || known.stand === "lapsed";
        return isFree ? this.#acquire(scope, key, words, known) : Response.json(shown(known));
      }
      const left = end - Date.now();
      if (left <= 0) return busy(known, isHeld ? BUSY_MS : freeIn);
      await change(known, isHeld ? left : Math.min(left, freeIn));
    }
  }

  /** In hand from now on. What it is about, and what a second run would do, the first begin says. */
  #acquire(scope: string, key: string, words: Words, before: Known | undefined): Response {
    this.#fence += 1;
    const lease = readDuration(words["lease"]) ?? LEASE_MS;
    const known: Known = {
      key,
      stand: "acquired",
      attempt: (before?.attempt ?? 0) + 1,
      effects: before?.effects ?? (words["effects"] as Effects | undefined) ?? "non-idempotent",
      operation: before?.operation ?? this.newOperation(),
      fence: this.#fence,
      leaseUntil: Date.now() + lease,
      holder: words["holder"] as string | undefined,
      fingerprint: before ? before.fingerprint : textOf(words["fingerprint"]),
      nonce: words["nonce"] as string | undefined,
      outcome: null,
      ok: true,
      freeAt: 0,
      waiting: before?.waiting ?? new Set(),
    };
    this.#known.set(placeOf(scope, key), known);
    return Response.json(shown(known));
  }
}

/** What a word about a claim comes to. */
function said(known: Known, verb: string, words: Words): Response {
  const givesUp = words["may_have_executed"] === true;
  const table = WORTH[verb === "release" && givesUp ? "giveUp" : verb];
  if (!table) {
    const detail = "It is begin, complete, release or renew.";
    return refuse("not-found", 404, "fix-request", "There is no such thing", detail);
  }
  const worth = words["fence"] === known.fence ? table[known.stand] : "stale";
  const outcome = words["outcome"] ?? null;
  const ok = words["ok"] !== false;
  const isOther = () => JSON.stringify([outcome, ok]) !== JSON.stringify([known.outcome, known.ok]);
  if (worth === "stale" || (worth === "said" && verb === "complete" && isOther())) {
    return stale(known);
  }
  if (worth === "holds" && verb === "complete") {
    Object.assign(known, { stand: "done", outcome, ok });
    wake(known);
  } else if (worth === "holds" && verb === "release") {
    known.stand = givesUp ? lapsed(known) : "released";
    known.freeAt = Date.now() + (readDuration(words["retry_after"]) ?? 0);
    wake(known);
  } else if (verb === "renew") {
    known.leaseUntil = Date.now() + (readDuration(words["lease"]) ?? LEASE_MS);
  }
  const answer = shown(known);
  // Whoever gives it back is told that, whatever that leaves.
  if (verb === "release" && known.stand === "lapsed") answer.status = "released";
  return Response.json(answer);
}

function placeOf(scope: string, key: string): string {
  return JSON.stringify([scope, key]);
}

function textOf(value: unknown): string | undefined {
  return value === undefined || value === null ? undefined : JSON.stringify(value);
}

/** How it stands where nobody knows whether it was done. */
function lapsed(known: Known): Stand {
  return known.effects === "non-idempotent" ? "in_doubt" : "lapsed";
}

/** Waits until it stands otherwise, or for so long. */
function change(known: Known, ms: number): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      known.waiting.delete(end);
      resolve();
    };
    const timer = setTimeout(end, Math.max(1, ms));
    known.waiting.add(end);
  });
}

function wake(known: Known): void {
  for (const end of [...known.waiting]) end();
}

/** The claim, with what belongs to how it stands. */
function shown(known: Known): Claim {
  const { key, stand: status, attempt, effects, operation } = known;
  const claim: Claim = { key, status, attempt, effects, operation };
  if (status === "acquired") {
    claim.fence = known.fence;
    claim.lease_until = new Date(known.leaseUntil).toISOString();
    if (known.holder !== undefined) claim.holder = known.holder;
  }
  return status === "done" ? { ...claim, outcome: known.outcome, ok: known.ok } : claim;
}

/** Only who has it in hand knows its fence. */
function busy(known: Known, afterMs: number): Response {
  const { fence: _, ...rest } = shown(known);
  const answer = { ...rest, status: "busy", retry_after_ms: Math.max(1, Math.ceil(afterMs)) };
  const headers = { "retry-after": String(Math.ceil(afterMs / 1000)) };
  return Response.json(answer, { headers });
}

function noSuchClaim(key: string): Response {
  const detail = `Nobody has begun ${key}.`;
  return refuse("not-found", 404, "fix-request", "There is no such thing", detail);
}

function mismatch(): Response {
  const title = "The key was used for another request";
  const detail = "It differs in: fingerprint. Nothing was sent; a new intent needs a new key.";
  const more = { differs: ["fingerprint"], paths: [] };
  return refuse("key-mismatch", 409, "new-key", title, detail, more);
}

function stale(known: Known): Response {
  const detail = `Somebody has begun it since, or it has ended otherwise: it is ${known.stand}. Nothing was changed.`;
  return refuse("fence-stale", 409, "escalate", "Its holder has it in hand no more", detail);
}
