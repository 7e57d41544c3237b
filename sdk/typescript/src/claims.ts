/** Claims: the ledger as a service for handlers, consumers and jobs of one's own. */

import { type Answer, documentOf } from "./answer.js";
import type { Onceward } from "./client.js";
import {
  AnswerUnreadableError,
  FenceStaleError,
  InProgressError,
  OncewardError,
  OutcomeUnknownError,
  ProblemError,
  problem,
  RefusedError,
  UnreachableError,
} from "./errors.js";
import { newKey } from "./keys.js";
import { pause, TIMER_MS_MAX } from "./retry.js";
import type { Begin, Claim, Complete, Effects } from "./shapes.js";
import { duration } from "./units.js";

/** What the gateway waits for somebody else's outcome in one request, at most. */
const WAIT_MS_MAX = 60_000;

/** How long a claim is in hand after each sign of life, where nobody says. */
const LEASE_MS = 30_000;

/** No lease is counted as longer, in this process. */
const LEASE_MS_MAX = 24 * 3_600_000;

/** Renewals come no closer together than this, whatever the lease. */
const PAUSE_MS_MIN = 50;

/** How long a busy claim is left alone, where the gateway does not say. */
const BUSY_MS = 1_000;

/** How a claim stands where a word of it was heard. */
const HEARD: Record<string, string[]> = {
  complete: ["done"],
  release: ["released", "in_doubt"],
  renew: ["acquired"],
};

const NO_CLAIM = "it is not the claim that was asked for";

/** What holds for all claims of a scope. */
export interface ClaimsOptions {
  /** How long a claim is in hand after each sign of life, in milliseconds. */
  leaseMs?: number;
  /** What doing it again would do, where nobody knows whether it was done. */
  effects?: Effects;
  /** Who has it in hand, for people who look. */
  holder?: string;
}

/** What a begin says. */
export interface BeginOptions extends ClaimsOptions {
  /** What must be equal for the same key: a text, or any JSON of up to 1,024 bytes. */
  fingerprint?: unknown;
  /** Names this begin, so that it can be sent again; drawn anew where nothing is said. */
  nonce?: string;
  /** How long somebody else's outcome is waited for, in milliseconds, up to a minute. */
  waitMs?: number;
  signal?: AbortSignal | undefined;
}

/** How an effect is run once. */
export interface OnceOptions extends Omit<BeginOptions, "nonce"> {
  /** How long somebody else is waited for who has it in hand, in milliseconds: a minute where nothing is said. */
  waitMs?: number;
}

/** What an effect is told. */
export interface Held {
  key: string;
  /** Grows with each holder: let what is written to refuse a smaller one. */
  fence: number;
  /** The operation's id: a good key for what is called from here. */
  operation: string;
  /** Ends where the claim is lost, or its lease is over and no renewal was heard: somebody else may have begun since. */
  signal: AbortSignal;
}

/** Thrown by an effect that knows that nothing was done: the key is free again. */
export class NotDoneError extends OncewardError {
  constructor(
    message: string,
    /** How long nobody shall begin it, in milliseconds. */
    readonly retryAfterMs?: number,
    options?: ErrorOptions,
  ) {
    super(message, "same-key", options);
  }
}

/** It was done, and did not succeed: that is its outcome, and all get it. */
export class EffectFailedError extends OncewardError {
  constructor(
    key: string,
    readonly outcome: unknown,
  ) {
    super(`${key} has ended, and did not succeed`, "new-key");
  }
}

/**
 * The effect of a claim ran, and no answer says that its outcome is written; the cause says why. It is in
 * doubt once its lease is over, or free to be begun anew where that is harmless, or done where the answer
 * alone was lost. A `complete` with this fence is believed until somebody has begun it since, or a person
 * has decided.
 */
export class UnwrittenError extends OncewardError {
  constructor(
    /** The claim's key. */
    readonly key: string,
    /** The fence that it was run under. */
    readonly fence: number,
    options: { cause: unknown },
  ) {
    const { cause } = options;
    const why = cause instanceof Error ? cause.message : String(cause);
    super(`the effect of ${key} ran, and its outcome is not written down: ${why}`, "escalate", {
      cause,
    });
  }
}

/**
 * A claim, and for how long it is in hand from its asking on. Its lease began when the gateway wrote it,
 * which no answer tells: no earlier than it was asked.
 */
export interface Granted {
  claim: Claim;
  leaseMs: number;
  /** When it was asked first, in milliseconds of a clock that only goes on. */
  askedAt: number;
}

/** The claims of one scope. */
export class Claims {
  constructor(
    private readonly client: Onceward,
    /** Within what keys are unique. */
    readonly scope: string,
    private readonly defaults: ClaimsOptions = {},
  ) {}

  /**
   * Begins an effect: `acquired` says that it is in hand, `done` that somebody did it. A begin
   * that is sent again because its answer was lost is the same begin.
   */
  async begin(key: string, options: BeginOptions = {}): Promise<Claim> {
    return (await this.beginFor(key, options)).claim;
  }

  /** The same, and for how long it is in hand. */
  async beginFor(key: string, options: BeginOptions = {}): Promise<Granted> {
    const said = { ...this.defaults, ...options };
    const body: Begin = { nonce: said.nonce ?? newKey() };
    if (said.leaseMs !== undefined) body.lease = duration(said.leaseMs);
    if (said.fingerprint !== undefined) body.fingerprint = said.fingerprint;
    if (said.effects !== undefined) body.effects = said.effects;
    if (said.holder !== undefined) body.holder = said.holder;
    const waitMs =
      said.waitMs === undefined ? undefined : Math.max(0, Math.min(said.waitMs, WAIT_MS_MAX));
    if (waitMs !== undefined) body.wait = duration(waitMs);
    return this.#say(key, "begin", body, { ...said, waitMs });
  }

  /**
   * Begins an effect that is to run here, with most of its lease before it. An answer that was long on
   * its way says little of what is left of the lease: it is renewed before anything runs, and given back
   * where that cannot be.
   */
  async take(key: string, options: BeginOptions = {}): Promise<Granted> {
    const begun = await this.beginFor(key, options);
    const { claim, leaseMs, askedAt } = begun;
    const isLate = performance.now() - askedAt > leaseMs / 3;
    if (claim.status !== "acquired" || !isLate) return begun;
    const fence = claim.fence ?? 0;
    try {
      return { ...(await this.renewFor(key, fence, options)), claim };
    } catch (error) {
      await releaseQuietly(this, key, fence, { reason: "it was begun too late" });
      if (!(error instanceof FenceStaleError)) throw error;
      const why = `the begin of ${key} took longer than its lease; nothing was done`;
      throw new UnreachableError(why, key, { cause: error });
    }
  }

  /** Says that it was done, and what all shall get; `ok: false` where it did not succeed. */
  async complete(
    key: string,
    fence: number,
    outcome: unknown = null,
    options: { ok?: boolean; signal?: AbortSignal | undefined } = {},
  ): Promise<Claim> {
    const body: Complete = { fence, outcome: outcome ?? null };
    if (options.ok !== undefined) body.ok = options.ok;
    return (await this.#say(key, "complete", body, options)).claim;
  }

  /** Gives it back: nothing was done, or, with `mayHaveExecuted`, nobody knows. */
  async release(
    key: string,
    fence: number,
    options: {
      reason?: string;
      retryAfterMs?: number | undefined;
      mayHaveExecuted?: boolean;
      signal?: AbortSignal | undefined;
    } = {},
  ): Promise<Claim> {
    const body: Record<string, unknown> = { fence };
    if (options.reason !== undefined) body["reason"] = options.reason.slice(0, 256);
    if (options.retryAfterMs !== undefined) body["retry_after"] = duration(options.retryAfterMs);
    if (options.mayHaveExecuted) body["may_have_executed"] = true;
    return (await this.#say(key, "release", body, options)).claim;
  }

  /** Keeps it in hand for another lease. */
  async renew(
    key: string,
    fence: number,
    options: { leaseMs?: number | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<Claim> {
    return (await this.renewFor(key, fence, options)).claim;
  }

  /** The same, and for how long it is in hand. */
  async renewFor(
    key: string,
    fence: number,
    options: { leaseMs?: number | undefined; signal?: AbortSignal | undefined } = {},
  ): Promise<Granted> {
    const leaseMs = options.leaseMs ?? this.defaults.leaseMs;
    const lease = leaseMs === undefined ? {} : { lease: duration(leaseMs) };
    return this.#say(key, "renew", { fence, ...lease }, { ...options, leaseMs });
  }

  /** How it stands. */
  async get(key: string): Promise<Claim> {
    const claim = await this.client.ask<Claim | null>("GET", this.#path(key), undefined);
    if (claim?.key !== key) throw new AnswerUnreadableError(NO_CLAIM);
    return claim;
  }

  /**
   * Runs `effect` unless somebody has, and gives its outcome, which is kept as JSON: whoever comes
   * while it runs waits, whoever comes later gets what was kept. Its lease is renewed meanwhile.
   *
   * An effect that throws may have been done, unless it throws a {@link NotDoneError}; what follows
   * is what `effects` says.
   *
   * @throws {InProgressError} somebody else has it in hand, for longer than was waited.
   * @throws {OutcomeUnknownError} it may have been done, and only a person can tell.
   * @throws {EffectFailedError} it was done, and did not succeed.
   * @throws {UnwrittenError} it ran, and the ledger does not know its outcome.
   */
  async once<T>(
    key: string,
    effect: (held: Held) => T | Promise<T>,
    options: OnceOptions = {},
  ): Promise<T> {
    const granted = await this.#acquire(key, options);
    const { claim } = granted;
    if (claim.status === "done") {
      if (claim.ok === false) throw new EffectFailedError(key, claim.outcome);
      return claim.outcome as T;
    }
    const hold = this.hold(granted, options.leaseMs);
    let outcome: T;
    try {
      outcome = await effect(hold.held);
    } catch (error) {
      await hold.giveBack(error);
      throw error;
    }
    try {
      // It stays in hand until that is heard: a gateway that is away comes back.
      await hold.complete(outcome);
    } catch (cause) {
      if (cause instanceof FenceStaleError) throw cause;
      throw new UnwrittenError(key, hold.held.fence, { cause });
    } finally {
      hold.stop();
    }
    return outcome;
  }

  /** Keeps an acquired claim in hand until it is stopped; `leaseMs` is what its renewals ask for. */
  hold(granted: Granted, leaseMs = this.defaults.leaseMs, holdMsMax = Infinity): Hold {
    return new Hold(this, granted, leaseMs, holdMsMax);
  }

  async #acquire(key: string, options: OnceOptions): Promise<Granted> {
    const end = Date.now() + (options.waitMs ?? WAIT_MS_MAX);
    for (;;) {
      const left = Math.max(0, end - Date.now());
      const granted = await this.take(key, { ...options, waitMs: left });
      const { claim } = granted;
      if (claim.status === "acquired" || claim.status === "done") return granted;
      if (claim.status === "in_doubt") throw claimInDoubt(claim);
      const retryAfterMs = claim.retry_after_ms ?? BUSY_MS;
      if (Date.now() + retryAfterMs >= end) throw claimBusy(claim, retryAfterMs);
      await pause(retryAfterMs, options.signal);
    }
  }

  #path(key: string): string {
    return `/v1/claims/${encodeURIComponent(this.scope)}/${encodeURIComponent(key)}`;
  }

  async #say(
    key: string,
    verb: string,
    body: unknown,
    said: {
      signal?: AbortSignal | undefined;
      waitMs?: number | undefined;
      leaseMs?: number | undefined;
    },
  ): Promise<Granted> {
    const askedAt = performance.now();
    const path = `${this.#path(key)}/${verb}`;
    // A nonce or a fence tells a second arrival.
    const how = { signal: said.signal, extraMs: said.waitMs ?? 0, isSafe: true };
    const answer = await this.client.askFor("POST", path, body, how);
    const claim = documentOf<Claim | null>(answer);
    if (claim?.key !== key || !claim.status) throw new AnswerUnreadableError(NO_CLAIM);
    if (HEARD[verb] && !HEARD[verb].includes(claim.status)) {
      throw new AnswerUnreadableError(`the claim is ${claim.status}`);
    }
    return { claim, leaseMs: granted(claim, answer, said.leaseMs), askedAt };
  }
}

/**
 * For how long `claim` is in hand: what was asked, unless its answer says less. By the clock of whoever
 * answered, which need not be ours; it says whole seconds, so that up to one of what it seems to say is
 * over already.
 */
function granted(claim: Claim, answer: Answer, askedMs: number | undefined): number {
  const saidMs = Date.parse(claim.lease_until ?? "") - Date.parse(answer.headers.get("date") ?? "");
  if (Number.isNaN(saidMs)) return Math.min(askedMs ?? LEASE_MS, LEASE_MS_MAX);
  return Math.min(Math.max(saidMs - 1000, saidMs / 2, 0), askedMs ?? LEASE_MS_MAX, LEASE_MS_MAX);
}

/** Whether a claim that is refused so is not ours any more. */
function isFinal(error: unknown): boolean {
  if (!(error instanceof ProblemError)) return false;
  return error instanceof FenceStaleError || [403, 404, 410].includes(error.status);
}

/** A lease that ends by itself says the same, later; what went wrong first is what counts. */
async function releaseQuietly(
  claims: Claims,
  key: string,
  fence: number,
  how: Parameters<Claims["release"]>[2],
): Promise<void> {
  try {
    await claims.release(key, fence, how);
  } catch (refused) {
    if (!(refused instanceof OncewardError)) throw refused;
  }
}

/** Where JSON has nothing to say of an outcome, nobody could be given it later. */
function checkWritable(outcome: unknown): void {
  if (outcome !== undefined && JSON.stringify(outcome) === undefined) {
    throw new TypeError(`JSON has no ${typeof outcome}`);
  }
}

/** A claim in hand: renewed at a third of what was granted until it is stopped. */
export class Hold {
  readonly held: Held;
  readonly #lost = new AbortController();
  readonly #over = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #losing: ReturnType<typeof setTimeout> | undefined;
  readonly #end: number;
  #leaseMs: number;
  /** By a clock that only goes on. */
  #until: number;

  constructor(
    private readonly claims: Claims,
    granted: Granted,
    private readonly askedMs: number | undefined,
    /** From then on its lease ends by itself, whatever its holder does. */
    holdMsMax: number,
  ) {
    const { key, fence = 0, operation } = granted.claim;
    this.held = { key, fence, operation, signal: this.#lost.signal };
    this.#end = performance.now() + holdMsMax;
    this.#leaseMs = granted.leaseMs;
    this.#until = granted.askedAt + granted.leaseMs;
    this.#loseLater();
    this.#renewLater();
  }

  /**
   * Says that it was done. What the ledger will never take is given back as what may have been done,
   * since no further try could write it; a lease that ends by itself says the same, later.
   */
  async complete(outcome: unknown): Promise<void> {
    const { key, fence } = this.held;
    try {
      checkWritable(outcome);
      await this.claims.complete(key, fence, outcome);
    } catch (error) {
      if (error instanceof RefusedError || !(error instanceof OncewardError)) {
        await this.#release({
          reason: "its outcome cannot be written down",
          mayHaveExecuted: true,
        });
      }
      throw error;
    }
  }

  /** Says that an effect ended in an error: nothing was done where the error says so. */
  async giveBack(error: unknown): Promise<void> {
    this.stop();
    if (error instanceof NotDoneError) {
      const { message: reason, retryAfterMs } = error;
      return this.#release({ reason, retryAfterMs });
    }
    // An error's words may hold what nobody should read there: its name has to do.
    const reason = error instanceof Error ? error.name : "it failed";
    return this.#release({ reason, mayHaveExecuted: true });
  }

  /** Renews it no more. */
  stop(): void {
    this.#over.abort();
    clearTimeout(this.#timer);
    clearTimeout(this.#losing);
  }

  async #release(how: Parameters<Claims["release"]>[2]): Promise<void> {
    await releaseQuietly(this.claims, this.held.key, this.held.fence, how);
  }

  #renewLater(): void {
    const left = Math.max(0, this.#until - performance.now());
    const wait = Math.min(Math.max(this.#leaseMs / 3, PAUSE_MS_MIN), left);
    this.#timer = setTimeout(() => void this.#renew(), wait);
    // A process that has nothing else to do may end.
    (this.#timer as { unref?: () => void }).unref?.();
  }

  /** Lost where no renewal is heard by then: the gateway counts so too. */
  #loseLater(): void {
    clearTimeout(this.#losing);
    const why = `the lease of ${this.held.key} is over, and was not renewed`;
    const lose = () => this.#lost.abort(new OncewardError(why, "escalate"));
    const left = Math.max(0, this.#until - performance.now());
    this.#losing = setTimeout(lose, Math.min(left, TIMER_MS_MAX));
    (this.#losing as { unref?: () => void }).unref?.();
  }

  async #renew(): Promise<void> {
    const { key, fence } = this.held;
    const asked = performance.now();
    // A renewal that hangs is worth no more than the lease that it is to renew.
    const signal = AbortSignal.any([this.#lost.signal, this.#over.signal]);
    try {
      const how = { leaseMs: this.askedMs, signal };
      const { leaseMs, askedAt } = await this.claims.renewFor(key, fence, how);
      this.#leaseMs = leaseMs;
      this.#until = askedAt + leaseMs;
      if (!signal.aborted) this.#loseLater();
    } catch (error) {
      // Else it was asked several times over; the next third is another chance.
      if (!signal.aborted && isFinal(error)) this.#lost.abort(error);
    }
    if (!signal.aborted && asked < this.#end) this.#renewLater();
  }
}

/** What a busy claim is to whoever asked for it. */
export function claimBusy(claim: Claim, retryAfterMs: number | undefined): InProgressError {
  const title = "The first call with this key is under way";
  const detail = "Somebody else has it in hand. Ask again with the same key to get its outcome.";
  const said = problem("in-progress", 409, "wait", title, detail);
  return new InProgressError(
    { ...said, operation: claim.operation },
    { key: claim.key, retryAfterMs },
  );
}

/** What a claim in doubt is to whoever asked for it. */
export function claimInDoubt(claim: Claim): OutcomeUnknownError {
  const title = "Nobody knows whether it was done";
  const detail = "It was begun, and nobody said how it ended. A person resolves it.";
  const said = problem("outcome-unknown", 409, "escalate", title, detail);
  return new OutcomeUnknownError({ ...said, operation: claim.operation }, { key: claim.key });
}
