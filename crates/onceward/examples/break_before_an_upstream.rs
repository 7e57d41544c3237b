//! How do I stop asking an upstream that fails, and have my callers told at once?
//!
//! ```sh
//! cargo run -p onceward --example break_before_an_upstream
//! ```

use std::io::{Error, ErrorKind};

use bytes::Bytes;
use http::{Request, Response};
use onceward::client::{BreakerError, BreakerLayer, Failed, RetryLayer};
use tower::{ServiceBuilder, ServiceExt, service_fn};

#[tokio::main]
async fn main() {
    // Stands in for your client: nobody listens there.
    let client = service_fn(async |_: Request<Bytes>| {
        Err::<Response<Bytes>, _>(Error::from(ErrorKind::ConnectionRefused))
    });
    let breaker = BreakerLayer::new().errors(|error: &Error| match error.kind() {
        ErrorKind::ConnectionRefused => Failed::Unsent,
        _ => Failed::Unanswered,
    });
    let client = ServiceBuilder::new()
        // Outside: an open breaker is not knocked at again.
        .layer(RetryLayer::new())
        .layer(breaker.clone())
        .service(client);
    loop {
        let request = Request::new(Bytes::new());
        match client.clone().oneshot(request).await {
            Err(BreakerError::Open { retry_after }) => {
                println!("told at once: come back in {retry_after:?}");
                break;
            }
            came => println!("{came:?}; the breaker is {}", breaker.state()),
        }
    }
    assert_eq!(breaker.state(), "open");
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main();
    }
}
