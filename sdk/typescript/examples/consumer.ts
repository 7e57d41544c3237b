/**
 * A consumer of a queue that delivers at least once, as RabbitMQ and SQS do: each message has one
 * effect, whatever is delivered twice, whoever dies meanwhile.
 *
 * The queue here is in this process, so that it runs anywhere:
 *
 *     ONCEWARD_URL=http://127.0.0.1:7077 npx tsx examples/consumer.ts
 */

import {
  type Claims,
  EffectFailedError,
  type Held,
  InProgressError,
  KeyMismatchError,
  NotDoneError,
  Onceward,
  OncewardError,
  OutcomeUnknownError,
  UnwrittenError,
} from "onceward";

/** A delivery, in the words that brokers share. */
interface Message {
  /** What the producer called it: the same at each delivery. */
  id: string;
  body: string;
  /** It is dealt with. SQS: delete it. */
  ack(): void;
  /** Come again later. SQS: its visibility; RabbitMQ: a queue with a time to live. */
  retryIn(ms: number): void;
  /** A person decides. Both: the dead letter queue. */
  park(why: string): void;
}

/** Deals with one delivery. */
async function consume(
  message: Message,
  claims: Claims,
  effect: (message: Message, held: Held) => Promise<unknown>,
): Promise<void> {
  try {
    // Not longer than the broker waits for an ack; a duplicate of what runs comes again instead.
    const options = { fingerprint: message.body, waitMs: 0 };
    await claims.once(message.id, (held) => effect(message, held), options);
    message.ack();
  } catch (error) {
    if (error instanceof InProgressError) message.retryIn(error.retryAfterMs ?? 1000);
    else if (error instanceof NotDoneError) message.retryIn(error.retryAfterMs ?? 1000);
    else if (error instanceof EffectFailedError) message.ack();
    else if (error instanceof OutcomeUnknownError) message.park("it may have been done");
    else if (error instanceof KeyMismatchError) message.park("two messages have one id");
    else if (error instanceof UnwrittenError) message.park("it ran, and its outcome is not known");
    // It passes by itself: the gateway is away, or has no time.
    else if (error instanceof OncewardError && error.advice === "same-key") message.retryIn(5000);
    else if (error instanceof OncewardError) message.park("it would be refused for ever");
    // The effect's own error: what was begun is in doubt.
    else message.park("it may have been done");
  }
}

/** A queue that delivers everything twice, and again what is asked for. */
async function main(): Promise<void> {
  const claims = new Onceward().claims(`mails-${crypto.randomUUID()}`, { holder: "consumer-1" });
  const deliveries = ["anna", "otto", "anna", "otto"].map((name) => `welcome-${name}`);
  const mails: string[] = [];
  let delivered = 0;
  let isBusy = true;
  const send = async ({ id }: Message) => {
    if (isBusy) {
      isBusy = false;
      throw new NotDoneError("the mail server is busy", 1);
    }
    mails.push(id);
    return { mail: `m-${mails.length}` };
  };
  while (deliveries.length > 0) {
    const id = deliveries.shift() ?? "";
    delivered += 1;
    const message: Message = {
      id,
      body: `Welcome, ${id}`,
      ack: () => {},
      retryIn: () => deliveries.push(id),
      park: (why) => console.log(`${id} is set aside: ${why}`),
    };
    await consume(message, claims, send);
  }
  console.log(`${delivered} deliveries, ${mails.length} mails: ${mails.sort().join(", ")}`);
}

await main();
