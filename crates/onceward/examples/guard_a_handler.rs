//! How do I give a handler of axum the contract?
//!
//! ```sh
//! cargo run -p onceward --example guard_a_handler
//! curl -i http://127.0.0.1:3000/orders -H 'x-user: anna' -H 'Idempotency-Key: order-1' -d '{"amount": 100}'
//! ```
//!
//! Send it twice, with another amount, as another user; kill the process in between.

use axum::Extension;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use onceward::Onceward;
use onceward::core::policy::{KeyMissing, Meaning};
use onceward::layer::Keyed;
use serde_json::{Value, json};

/// Who was authenticated.
#[derive(Debug, Clone)]
struct User(String);

/// Stands in for whatever authenticates your callers: only then is anything replayed to them.
async fn authenticate(mut request: Request, next: Next) -> Result<Response, StatusCode> {
    let user = request.headers().get("x-user").and_then(|user| user.to_str().ok());
    let user = User(user.ok_or(StatusCode::UNAUTHORIZED)?.to_owned());
    request.extensions_mut().insert(user);
    Ok(next.run(request).await)
}

/// What must not happen twice. The operation's name is a good key for what is done elsewhere.
async fn order(
    Extension(User(user)): Extension<User>,
    Extension(keyed): Extension<Keyed>,
    Json(order): Json<Value>,
) -> (StatusCode, Json<Value>) {
    println!("{user} orders for {}, once: {}", order["amount"], keyed.operation);
    (StatusCode::CREATED, Json(json!({"order": keyed.operation.to_string(), "for": user})))
}

fn app(once: &Onceward) -> Router {
    let orders = once
        .layer("orders")
        // Without it, whoever knows a key would get its answer.
        .principal(|head| head.extensions.get::<User>().map_or_else(String::new, |it| it.0.clone()))
        .key_missing(KeyMissing::Require)
        // Our handlers answer 503 before they do anything: the same key may run again.
        .means(503, Meaning::NotProcessed);
    Router::new()
        .route("/orders", post(order))
        .layer(orders)
        // Outside of the layer, so that it has gone before.
        .layer(middleware::from_fn(authenticate))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let once = Onceward::sqlite("onceward-data/ledger.db").await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let watched = once.clone();
    let serve = axum::serve(listener, app(&once)).with_graceful_shutdown(async move {
        // Ends by Ctrl-C, or where the ledger cannot be used: then the next start recovers.
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = watched.broken() => eprintln!("the ledger cannot be used any more"),
        }
    });
    serve.await?;
    once.stop().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn it_is_guarded() {
        let app = app(&Onceward::memory().await.unwrap());
        let ask = async |user: &str, key: &str| {
            let request = Request::post("/orders")
                .header("content-type", "application/json")
                .header("x-user", user)
                .header("idempotency-key", key)
                .body(Body::from(r#"{"amount": 100}"#))
                .unwrap();
            let answer = app.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED);
            answer.headers()["onceward-operation"].to_str().unwrap().to_owned()
        };
        let first = ask("anna", "order-1").await;
        assert_eq!(ask("anna", "order-1").await, first);
        assert_ne!(ask("bert", "order-1").await, first);
    }
}
