//! Two scripted upstreams, so that everything can be tried offline: `demo` dedupes by key,
//! `demo-unsafe` does not. `?script=503,drop,201` says what each call with a key meets: a status,
//! `drop` (it is charged and the answer is lost) or `hang` (it is charged and no answer comes).
//! Both count their effects, at `/effects`. They live on a socket of their own.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use onceward::core::policy::{Effects, Policy};
use onceward::route::{Protection, Route};
use onceward::upstream::Target;
use serde_json::json;
use tokio::net::TcpListener;
use url::Url;

/// How long `hang` keeps a caller: longer than any attempt's timeout.
const HANG: Duration = Duration::from_mins(10);

/// What one upstream has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Effects, that is: charges.
    effects: u64,
    /// Calls that came.
    calls: u64,
    /// By key: calls so far, and the number of the charge.
    keys: HashMap<String, (usize, Option<u64>)>,
}

#[derive(Debug, Default)]
struct Demo {
    safe: Mutex<Seen>,
    reckless: Mutex<Seen>,
}

/// What the script says next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Status(StatusCode),
    Drop,
    Hang,
}

fn step(script: &str, call: usize) -> Option<Step> {
    let steps: Vec<&str> =
        script.split(',').map(str::trim).filter(|step| !step.is_empty()).collect();
    // The last step is what every further call meets.
    match *steps.get(call).or_else(|| steps.last())? {
        "drop" => Some(Step::Drop),
        "hang" => Some(Step::Hang),
        status => status
            .parse()
            .ok()
            .filter(|status: &StatusCode| status.as_u16() >= 200)
            .map(Step::Status),
    }
}

impl Seen {
    /// What a call meets, and the number of the charge where it was charged.
    fn call(&mut self, key: &str, script: &str, dedupes: bool) -> (Option<Step>, Option<u64>) {
        self.calls += 1;
        let (calls, charged) = self.keys.get(key).copied().unwrap_or_default();
        let met = step(script, calls);
        let is_charged = match met {
            Some(Step::Status(status)) => status.is_success(),
            Some(Step::Drop | Step::Hang) => true,
            None => false,
        };
        let mut charge = charged.filter(|_| dedupes);
        if is_charged && charge.is_none() {
            self.effects += 1;
            charge = Some(self.effects);
        }
        self.keys.insert(key.to_owned(), (calls + 1, charge.or(charged)));
        (met, charge.filter(|_| is_charged))
    }
}

/// An answer, or none.
type Reply = Result<Response<Full<Bytes>>, std::io::Error>;

fn answer(status: StatusCode, document: &serde_json::Value) -> Reply {
    let mut text = document.to_string();
    text.push('\n');
    let response = Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(text)));
    response.map_err(std::io::Error::other)
}

async fn handle(demo: Arc<Demo>, request: Request<Incoming>) -> Reply {
    let dedupes = request.uri().path().starts_with("/demo/");
    let seen = if dedupes { &demo.safe } else { &demo.reckless };
    let path = request
        .uri()
        .path()
        .trim_start_matches("/demo-unsafe")
        .trim_start_matches("/demo")
        .to_owned();
    let script = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("script="))
        .unwrap_or("201")
        .replace("%2C", ",");
    let key = request
        .headers()
        .get("idempotency-key")
        .and_then(|key| key.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if path == "/effects" || request.method() == Method::GET {
        let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let document = json!({"count": seen.effects, "calls": seen.calls});
        drop(seen);
        return answer(StatusCode::OK, &document);
    }
    // A caller of this upstream is the gateway; its body is read whole, as an API would.
    Limited::new(request.into_body(), 64 << 20).collect().await.map_err(std::io::Error::other)?;
    let (step, charge) =
        seen.lock().unwrap_or_else(PoisonError::into_inner).call(&key, &script, dedupes);
    match step {
        Some(Step::Status(status)) if status == StatusCode::NO_CONTENT => {
            Response::builder().status(status).body(Full::default()).map_err(std::io::Error::other)
        }
        Some(Step::Status(status)) => match charge {
            Some(number) => answer(status, &json!({"order": number, "charged": true})),
            None => answer(
                status,
                &json!({"error": status.canonical_reason().unwrap_or("as the script says"), "charged": false}),
            ),
        },
        Some(Step::Drop) => Err(std::io::Error::other("the script drops the answer")),
        Some(Step::Hang) => {
            tokio::time::sleep(HANG).await;
            Err(std::io::Error::other("the script gives no answer"))
        }
        None => answer(
            StatusCode::BAD_REQUEST,
            &json!({"error": "script: statuses, `drop` or `hang`, with commas between"}),
        ),
    }
}

/// Starts the upstreams on a free port of this machine.
pub(crate) async fn start() -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let demo = Arc::new(Demo::default());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let demo = Arc::clone(&demo);
            tokio::spawn(async move {
                let service = service_fn(move |request| handle(Arc::clone(&demo), request));
                // A dropped answer ends its connection with an error: that is its point.
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(address)
}

/// The two routes to them, in the shape of `like`.
pub(crate) fn routes(address: SocketAddr, like: &Route) -> Vec<(String, Arc<Route>)> {
    let route = |name: &str, effects: Effects| {
        let base = Url::parse(&format!("http://{address}/{name}")).ok()?;
        let target =
            Target { base, trust: onceward::upstream::Trust::Operator, ..(*like.target).clone() };
        let (redact, seal_bodies) = (like.policy.redact.clone(), like.policy.seal_bodies);
        let policy = Policy { effects: Some(effects), redact, seal_bodies, ..Policy::default() };
        let route = Route {
            name: name.to_owned(),
            scope: None,
            target: Arc::new(target),
            policy: Arc::new(policy),
            // It fails when it is told to, and is to be seen failing.
            protection: Protection { breaker: None, budget: None, ..Protection::default() },
            ..like.clone()
        };
        Some((name.to_owned(), Arc::new(route)))
    };
    [route("demo", Effects::Keyed), route("demo-unsafe", Effects::NonIdempotent)]
        .into_iter()
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_fails_then_charges_and_loses_its_answer_then_answers() {
        let mut seen = Seen::default();
        let call = |seen: &mut Seen, dedupes| seen.call("k", "503,drop,201", dedupes);
        assert_eq!(
            call(&mut seen, true),
            (Some(Step::Status(StatusCode::SERVICE_UNAVAILABLE)), None)
        );
        assert_eq!(call(&mut seen, true), (Some(Step::Drop), Some(1)));
        assert_eq!(call(&mut seen, true), (Some(Step::Status(StatusCode::CREATED)), Some(1)));
        assert_eq!(seen.effects, 1);
        let mut reckless = Seen::default();
        for _ in 0..3 {
            call(&mut reckless, false);
        }
        assert_eq!(reckless.effects, 2, "it does not know the key");
    }
}
