"""A consumer of a queue that delivers at least once, as RabbitMQ and SQS do.

Each message has one effect, whatever is delivered twice, whoever dies meanwhile. The queue here is
in this process, so that it runs anywhere:

    ONCEWARD_URL=http://127.0.0.1:7077 python examples/consumer.py
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable
from typing import Protocol

from onceward import (
    Claims,
    EffectFailedError,
    Held,
    InProgressError,
    KeyMismatchError,
    NotDoneError,
    Onceward,
    OncewardError,
    OutcomeUnknownError,
    UnwrittenError,
)


class Message(Protocol):
    """A delivery, in the words that brokers share."""

    #: What the producer called it: the same at each delivery.
    id: str
    body: str

    def ack(self) -> None:
        """It is dealt with. SQS: delete it."""

    def retry_in(self, seconds: float) -> None:
        """Come again later. SQS: its visibility; RabbitMQ: a queue with a time to live."""

    def park(self, why: str) -> None:
        """A person decides. Both: the dead letter queue."""


def consume(message: Message, claims: Claims, effect: Callable[[Message, Held], object]) -> None:
    """Deals with one delivery."""
    try:
        # Not longer than the broker waits for an ack; a duplicate of what runs comes again instead.
        claims.once(
            message.id, lambda held: effect(message, held), fingerprint=message.body, wait=0
        )
    except (InProgressError, NotDoneError) as error:
        message.retry_in(error.retry_after or 1.0)
    except EffectFailedError:
        message.ack()
    except OutcomeUnknownError:
        message.park("it may have been done")
    except KeyMismatchError:
        message.park("two messages have one id")
    except UnwrittenError:
        message.park("it ran, and its outcome is not known")
    except OncewardError as error:
        # It passes by itself where the gateway is away, or has no time.
        if error.advice == "same-key":
            message.retry_in(5.0)
        else:
            message.park("it would be refused for ever")
    except Exception:
        # The effect's own error: what was begun is in doubt.
        message.park("it may have been done")
    else:
        message.ack()


class Delivery:
    """A message of a queue in this process."""

    def __init__(self, name: str, queue: deque[str]) -> None:
        self.id = name
        self.body = f"Welcome, {name}"
        self._queue = queue

    def ack(self) -> None:
        """Nothing is left to do."""

    def retry_in(self, seconds: float) -> None:
        """It comes again, at once here."""
        self._queue.append(self.id)

    def park(self, why: str) -> None:
        """It is told."""
        print(f"{self.id} is set aside: {why}")


def main() -> None:
    """Drains a queue that delivers everything twice, and again what is asked for."""
    deliveries = deque([f"welcome-{name}" for name in ("anna", "otto", "anna", "otto")])
    mails: list[str] = []
    delivered = 0
    troubles = [NotDoneError("the mail server is busy", retry_after=0.001)]

    def send(message: Message, _: Held) -> dict[str, str]:
        if troubles:
            raise troubles.pop()
        mails.append(message.id)
        return {"mail": f"m-{len(mails)}"}

    with Onceward() as client:
        claims = client.claims(f"mails-{uuid.uuid4()}", holder="consumer-1")
        while deliveries:
            delivered += 1
            consume(Delivery(deliveries.popleft(), deliveries), claims, send)
    print(f"{delivered} deliveries, {len(mails)} mails: {', '.join(sorted(mails))}")


if __name__ == "__main__":
    main()
