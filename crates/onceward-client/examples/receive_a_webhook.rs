//! How do I take a webhook that is really my provider's, and make nothing of a second arrival?
//!
//! ```sh
//! onceward serve &
//! cargo run -p onceward-client --example receive_a_webhook
//! ```

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use onceward_client::testing::sign_webhook;
use onceward_client::{BoxError, Claims, Error, Onceward, Scheme, new_key, verify_webhook};

/// What a handler does, of axum for one, with `HeaderMap` and `Bytes` for extractors: the body as it
/// came, and not what a parser made of it.
async fn receive(claims: &Claims, secrets: &[&str], headers: HeaderMap, body: Bytes) -> StatusCode {
    let verified = verify_webhook(&body, &headers, secrets, Scheme::StandardWebhooks);
    let Ok(verified) = verified else { return StatusCode::BAD_REQUEST };
    let id = verified.id.unwrap_or_default();
    let booked = claims.once(&id, async |held| {
        println!("booked: {} under fence {}", String::from_utf8_lossy(&body), held.fence);
        Ok::<_, BoxError>(())
    });
    match booked.await {
        Ok(()) => StatusCode::NO_CONTENT,
        // The provider sends it again: the key has what became of it.
        Err(Error::InProgress(_) | Error::Unavailable(_) | Error::Unreachable { .. }) => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    twice(&Onceward::new()?).await;
    Ok(())
}

async fn twice(onceward: &Onceward) {
    let claims = onceward.claims("payments");
    let (secret, body) =
        ("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", Bytes::from_static(b"{\"paid\":7}"));
    let headers = sign_webhook(&body, secret, &format!("msg_{}", new_key()), SystemTime::now());
    for _ in 0..2 {
        let status = receive(&claims, &[secret], headers.clone(), body.clone()).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
    }
    let other = Bytes::from_static(b"{\"paid\":8}");
    assert_eq!(receive(&claims, &[secret], headers, other).await, StatusCode::BAD_REQUEST);
}

#[cfg(test)]
mod tests {
    use onceward_client::testing::FakeGateway;

    use super::*;

    #[tokio::test]
    async fn it_runs() {
        twice(&Onceward::builder().transport(FakeGateway::new()).build().unwrap()).await;
    }
}
