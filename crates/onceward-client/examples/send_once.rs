//! How do I make a call that I may repeat, whatever dies meanwhile?
//!
//! ```sh
//! onceward serve &
//! cargo run -p onceward-client --example send_once
//! ```

use std::time::Duration;

use onceward_client::{BoxError, Call, Error, Onceward};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // At ONCEWARD_URL, or where `onceward serve` listens.
    charge(&Onceward::new()?, "order-1").await
}

async fn charge(onceward: &Onceward, order: &str) -> Result<(), BoxError> {
    // The key is the order's, and not drawn here: the same after a crash, in another process, tomorrow.
    let key = format!("{order}/charge");
    let call = Call::to("demo/charges?script=503,drop,201").key(key).form([("amount", "100")]);
    match onceward.send(call).await {
        Ok(answer) => println!(
            "{} after {:?} attempts: {}",
            answer.status(),
            answer.attempts(),
            answer.text()
        ),
        // It was sent, and nobody knows: a person finds out, and nothing is sent under a new key.
        Err(Error::OutcomeUnknown(refusal)) => println!("ask somebody: {refusal}"),
        // After all repeats: the same call with the same key, later.
        Err(error) => return Err(error.into()),
    }
    // What nobody waits for is on disk when this is back, and goes on through crashes.
    let receipt = Call::to("demo/receipts").key(format!("{order}/receipt")).body("thank you");
    let accepted = onceward.accept(receipt).await?;
    let story = onceward.wait(&accepted.operation, Duration::from_secs(30)).await?;
    println!("{} is {}", story.key, story.state);
    Ok(())
}

#[cfg(test)]
mod tests {
    use onceward_client::testing::FakeGateway;

    use super::*;

    #[tokio::test]
    async fn it_runs() {
        let onceward = Onceward::builder().transport(FakeGateway::new()).build().unwrap();
        for _ in 0..2 {
            charge(&onceward, "order-1").await.unwrap();
        }
    }
}
