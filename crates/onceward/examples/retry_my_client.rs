//! How do I retry what my own HTTP client sends, without a second effect?
//!
//! ```sh
//! cargo run -p onceward --example retry_my_client
//! ```

use std::io::{Error, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use onceward::client::{Failed, RetryLayer};
use onceward::core::policy::Effects;
use tower::{Layer, ServiceExt, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    // Stands in for your client: a connection that fails, one that breaks, then an answer.
    let client = service_fn(move |request: Request<Bytes>| {
        let n = counted.fetch_add(1, Ordering::Relaxed);
        println!("attempt {n} with key {:?}", request.headers()["idempotency-key"]);
        std::future::ready(match n {
            0 => Err(Error::from(ErrorKind::ConnectionRefused)),
            1 => Err(Error::from(ErrorKind::ConnectionReset)),
            _ => Ok(Response::new(Bytes::from_static(b"charged"))),
        })
    });
    let retrying = RetryLayer::new()
        // This API dedupes by the key, so that an attempt which may have worked can be made again.
        .effects(Effects::Keyed)
        // Which errors prove that nothing was sent: `is_connect` of reqwest's and of hyper-util's.
        .errors(|error: &Error| match error.kind() {
            ErrorKind::ConnectionRefused => Failed::Unsent,
            _ => Failed::Unanswered,
        })
        .layer(client);
    let request = Request::post("https://pay.example.com/charges").body(Bytes::from_static(b"{}"));
    let response = retrying.oneshot(request.map_err(Error::other)?).await?;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
