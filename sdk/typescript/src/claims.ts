/** Claims: the ledger as a service for handlers, consumers and jobs of one's own. */

import type { Onceward } from "./client.js";
import {
  AnswerUnreadableError,
  FenceStaleError,
  InProgressError,
  OncewardError,
  OutcomeUnknownError,
  problem,
} from "./errors.js";
import { newKey } from "./keys.js";
import { pause } from "./retry.js";
import type { Begin, Claim, Complete, Effects } from "./shapes.js";
import { duration } from "./units.js";

/** What the gateway waits for somebody else's outcome in one request, at most. */
const WAIT_MS_MAX = 60_000;

/** How long a claim is in hand after each sign of life, where nothing is said. */
const LEASE_MS = 30_000;

/** How a claim stands where a word of it was heard. */
const HEARD: Record<string, string[]> = {
  complete: ["done"],
  release: ["released", "in_doubt"],
  renew: ["acquired"],
};

/** The longest that a timer takes. */
const TIMER_MS_MAX = 2 ** 31 - 1;

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
    const said = { ...this.defaults, ...options };
    const body: Begin = { nonce: said.nonce ?? newKey() };
    if (said.leaseMs !== undefined) body.lease = duration(said.leaseMs);
    if (said.fingerprint !== undefined) body.fingerprint = said.fingerprint;
    if (said.effects !== undefined) body.effects = said.effects;
    if (said.holder !== undefined) body.holder = said.holder;
    if (said.waitMs !== undefined) body.wait = duration(said.waitMs);
    return this.#say(key, "begin", body, said.signal, said.waitMs);
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
    return this.#say(key, "complete", body, options.signal);
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
    return this.#say(key, "release", body, options.signal);
  }

  /** Keeps it in hand for another lease. */
  async renew(key: string, fence: number, options: { leaseMs?: number } = {}): Promise<Claim> {
    const leaseMs = options.leaseMs ?? this.defaults.leaseMs;
    const lease = leaseMs === undefined ? {} : { lease: duration(leaseMs) };
    return this.#say(key, "renew", { fence, ...lease });
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
   */
  async once<T>(
    key: string,
    effect: (held: Held) => T | Promise<T>,
    options: OnceOptions = {},
  ): Promise<T> {
    const claim = await this.#acquire(key, options);
    if (claim.status === "done") {
      if (claim.ok === false) throw new EffectFailedError(key, claim.outcome);
      return claim.outcome as T;
    }
    const hold = this.hold(claim, options.leaseMs);
    let outcome: T;
    try {
      outcome = await effect(hold.held);
    } catch (error) {
      await hold.giveBack(error);
      throw error;
    } finally {
      hold.stop();
    }
    await this.complete(key, hold.held.fence, outcome);
    return outcome;
  }

  /** Keeps an acquired claim in hand until it is stopped. */
  hold(claim: Claim, leaseMs = this.defaults.leaseMs ?? LEASE_MS, holdMsMax = Infinity): Hold {
    return new Hold(this, claim, leaseMs, holdMsMax);
  }

  async #acquire(key: string, options: OnceOptions): Promise<Claim> {
    const leaseMs = options.leaseMs ?? this.defaults.leaseMs ?? LEASE_MS;
    const end = Date.now() + (options.waitMs ?? WAIT_MS_MAX);
    for (;;) {
      const left = Math.max(0, end - Date.now());
      const waitMs = Math.min(left, WAIT_MS_MAX);
      const claim = await this.begin(key, { ...options, leaseMs, waitMs });
      if (claim.status === "acquired" || claim.status === "done") return claim;
      if (claim.status === "in_doubt") throw claimInDoubt(claim);
      const retryAfterMs = claim.retry_after_ms ?? 1000;
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
    signal?: AbortSignal,
    extraMs = 0,
  ): Promise<Claim> {
    const path = `${this.#path(key)}/${verb}`;
    // A nonce or a fence tells a second arrival.
    const how = { signal, extraMs, isSafe: true };
    const claim = await this.client.ask<Claim | null>("POST", path, body, how);
    if (claim?.key !== key || !claim.status) throw new AnswerUnreadableError(NO_CLAIM);
    if (HEARD[verb] && !HEARD[verb].includes(claim.status)) {
      throw new AnswerUnreadableError(`the claim is ${claim.status}`);
    }
    return claim;
  }
}

/** A claim in hand: renewed at a third of its lease until it is stopped. */
export class Hold {
  readonly held: Held;
  readonly #lost = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #losing: ReturnType<typeof setTimeout> | undefined;
  readonly #end: number;
  #isOver = false;

  constructor(
    private readonly claims: Claims,
    claim: Claim,
    private readonly leaseMs: number,
    /** From then on its lease ends by itself, whatever its holder does. */
    holdMsMax: number,
  ) {
    this.#end = Date.now() + holdMsMax;
    const { key, fence = 0, operation } = claim;
    this.held = { key, fence, operation, signal: this.#lost.signal };
    this.#loseLater(this.leaseMs);
    this.#renewLater();
  }

  /** Says that an effect ended in an error: nothing was done where the error says so. */
  async giveBack(error: unknown): Promise<void> {
    this.stop();
    const { key, fence } = this.held;
    try {
      if (error instanceof NotDoneError) {
        const { message: reason, retryAfterMs } = error;
        await this.claims.release(key, fence, { reason, retryAfterMs });
      } else {
        // An error's words may hold what nobody should read there: its name has to do.
        const reason = error instanceof Error ? error.name : "it failed";
        await this.claims.release(key, fence, { reason, mayHaveExecuted: true });
      }
    } catch (refused) {
      // A lease that ends by itself says the same, later; what went wrong first is what counts.
      if (!(refused instanceof OncewardError)) throw refused;
    }
  }

  /** Renews it no more. */
  stop(): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    clearTimeout(this.#losing);
  }

  #renewLater(): void {
    this.#timer = setTimeout(() => void this.#renew(), this.leaseMs / 3);
    // A process that has nothing else to do may end.
    (this.#timer as { unref?: () => void }).unref?.();
  }

  /** Lost where no renewal is heard by then: the gateway counts so too. */
  #loseLater(leftMs: number): void {
    if (this.#isOver) return;
    clearTimeout(this.#losing);
    const why = `the lease of ${this.held.key} is over, and was not renewed`;
    const lose = () => this.#lost.abort(new OncewardError(why, "escalate"));
    this.#losing = setTimeout(lose, Math.min(Math.max(0, leftMs), TIMER_MS_MAX));
    (this.#losing as { unref?: () => void }).unref?.();
  }

  async #renew(): Promise<void> {
    const { key, fence } = this.held;
    const asked = Date.now();
    try {
      await this.claims.renew(key, fence, { leaseMs: this.leaseMs });
      this.#loseLater(asked + this.leaseMs - Date.now());
    } catch (error) {
      if (error instanceof FenceStaleError) {
        this.#lost.abort(error);
        return;
      }
      // It was asked several times over; the next third of the lease is another chance.
    }
    if (!this.#isOver && Date.now() < this.#end) this.#renewLater();
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
