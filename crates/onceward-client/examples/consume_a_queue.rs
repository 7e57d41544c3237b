//! How do I consume a queue that delivers at least once, as RabbitMQ and SQS do?
//!
//! Each message has one effect, whatever is delivered twice, whoever dies meanwhile. The queue here is
//! in this process, so that it runs anywhere:
//!
//! ```sh
//! onceward serve &
//! cargo run -p onceward-client --example consume_a_queue
//! ```

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use onceward_client::{Begin, BoxError, Claims, Error, Held, NotDone, Onceward, new_key};

/// A delivery: what the producer called it, the same each time, and what it says.
struct Message {
    id: String,
    body: String,
}

/// What becomes of a delivery, in the words that brokers share.
#[derive(Debug, PartialEq)]
enum Settled {
    /// It is dealt with. SQS: delete it.
    Ack,
    /// Come again later. SQS: its visibility; RabbitMQ: a queue with a time to live.
    RetryIn(Duration),
    /// A person decides. Both: the dead letter queue.
    Park(&'static str),
}

/// Deals with one delivery.
async fn consume<F>(message: &Message, claims: &Claims, effect: impl FnOnce(Held) -> F) -> Settled
where
    F: Future<Output = Result<String, BoxError>>,
{
    // Not longer than the broker waits for an ack; a duplicate of what runs comes again instead.
    let begin = Begin::new().fingerprint(&*message.body).wait(Duration::ZERO);
    match claims.once_with(&message.id, &begin, effect).await {
        Ok(_) | Err(Error::EffectFailed { .. }) => Settled::Ack,
        Err(Error::OutcomeUnknown(_) | Error::Effect(_)) => Settled::Park("it may have been done"),
        Err(Error::KeyMismatch(_)) => Settled::Park("two messages have one id"),
        Err(error) => Settled::RetryIn(error.retry_after().unwrap_or(Duration::from_secs(1))),
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let claims = Onceward::new()?.claims(format!("mails-{}", new_key())).holder("consumer-1");
    let (delivered, mails) = drain(&claims).await;
    println!("{delivered} deliveries, {} mails: {}", mails.len(), mails.join(", "));
    Ok(())
}

/// Drains a queue that delivers everything twice, and again what is asked for.
async fn drain(claims: &Claims) -> (usize, Vec<String>) {
    let mut queue: VecDeque<_> = ["anna", "otto", "anna", "otto"].into();
    let (mails, busy) = (Mutex::new(Vec::new()), Mutex::new(true));
    let mut delivered = 0;
    while let Some(name) = queue.pop_front() {
        delivered += 1;
        let message = Message { id: format!("welcome-{name}"), body: format!("Welcome, {name}") };
        let settled = consume(&message, claims, async |_held| {
            // The first time it knows that nothing was done, and says so.
            if std::mem::take(&mut *busy.lock().map_err(|_| "poisoned")?) {
                return Err(NotDone::new("the mail server is busy").into());
            }
            mails.lock().map_err(|_| "poisoned")?.push(message.id.clone());
            Ok(format!("sent: {}", message.body))
        })
        .await;
        match settled {
            Settled::Ack => {}
            Settled::RetryIn(_) => queue.push_back(name),
            Settled::Park(why) => println!("{name} is set aside: {why}"),
        }
    }
    let mut mails = mails.into_inner().unwrap_or_default();
    mails.sort();
    (delivered, mails)
}

#[cfg(test)]
mod tests {
    use onceward_client::testing::FakeGateway;

    use super::*;

    #[tokio::test]
    async fn everything_is_delivered_twice_and_sent_once() {
        let onceward = Onceward::builder().transport(FakeGateway::new()).build().unwrap();
        let (delivered, mails) = drain(&onceward.claims("mails")).await;
        assert_eq!(
            (delivered, mails),
            (5, vec!["welcome-anna".to_owned(), "welcome-otto".to_owned()])
        );
    }

    #[tokio::test]
    async fn what_may_have_been_done_is_set_aside() {
        let onceward = Onceward::builder().transport(FakeGateway::new()).build().unwrap();
        let claims = onceward.claims("mails");
        let message = Message { id: "welcome-anna".to_owned(), body: "Welcome".to_owned() };
        for _ in 0..2 {
            let settled =
                consume(&message, &claims, async |_| Err("the answer was lost".into())).await;
            assert_eq!(settled, Settled::Park("it may have been done"));
        }
    }
}
