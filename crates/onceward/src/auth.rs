//! Credentials of ours that are fetched or made anew for an attempt: an access token (OAuth 2.0,
//! RFC 6749, section 4.4), a signature. None is stored.
//!
//! A token is kept in memory until shortly before it expires. One request at a time asks for one,
//! and after one that failed nobody asks for a while: whoever has no token then sends nothing.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use onceward_core::attempt::{Ending, Reached, Timings};
use onceward_core::exchange::{Headers, Request};
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use serde_json::Value;
use tokio::time::Instant;
use url::form_urlencoded::{Serializer, byte_serialize};
use url::{Position, Url};

use crate::deliver::collect;
use crate::upstream::{Dispatch, Failure, Sent, Target, Timeouts, Upstream};
use crate::webhook;

/// How long a token is used of which nobody says when it expires.
const UNSAID_LIFE: Duration = Duration::from_mins(5);

/// No token is used for longer, whatever is said.
const LIFE_MAX: Duration = Duration::from_hours(24);

/// A token is renewed when so much of its life is left, or a tenth of it if that is less.
const MARGIN_MAX: Duration = Duration::from_mins(1);

/// How long nobody asks after a request for a token that failed; it doubles with each.
const PAUSE: Duration = Duration::from_secs(1);

/// No pause is longer.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How long a token stays that replaced one which the upstream refused: if it refuses this one too,
/// a further one mends nothing.
const REFUSED_AGAIN: Duration = Duration::from_secs(10);

/// The largest answer of a server of tokens.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What a route sends of its own beside its `set_headers`.
#[derive(Debug, Clone, Default)]
pub struct Auth {
    /// Fetches a token for each request.
    pub oauth2: Option<Arc<OAuth2>>,
    /// Signs each delivery.
    pub signing: Option<Arc<SigningSecret>>,
    /// Stands in the place of each request's path and query.
    pub address: Option<Arc<SecretAddress>>,
}

/// A path and a query that are a secret, as an incoming webhook's are; it never shows itself, and no
/// operation has it.
pub struct SecretAddress(pub String);

impl fmt::Debug for SecretAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretAddress(…)")
    }
}

impl SecretAddress {
    /// The request, as it goes there.
    pub(crate) fn lay_on(&self, request: &Request) -> Request {
        Request { target: self.0.clone(), ..request.clone() }
    }
}

/// What signs deliveries as Standard Webhooks 1.0 has it; it never shows itself.
pub struct SigningSecret(pub Vec<u8>);

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(…)")
    }
}

impl SigningSecret {
    /// The headers of an attempt that begins now: its id is the operation's, the same each time.
    pub(crate) fn sign(&self, operation: &Operation, body: &[u8], now: Timestamp) -> Headers {
        let id = operation.id.to_string();
        let seconds = now.as_micros().div_euclid(1_000_000);
        let signature = webhook::sign(&self.0, &id, seconds, body);
        Headers(vec![
            ("webhook-id".to_owned(), id.into()),
            ("webhook-timestamp".to_owned(), seconds.to_string().into()),
            ("webhook-signature".to_owned(), signature.into()),
        ])
    }
}

/// What a token is asked for with.
pub struct ClientCredentials {
    /// Where.
    pub token_url: Url,
    /// Who we are.
    pub client_id: String,
    /// That we are.
    pub client_secret: String,
    /// What we want to do, as the server names it.
    pub scope: Option<String>,
    /// At which API, where the server wants to know.
    pub audience: Option<String>,
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials").finish_non_exhaustive()
    }
}

/// An OAuth 2.0 client with credentials of its own, and the token that it has.
pub struct OAuth2 {
    target: Arc<Target>,
    request: Arc<Request>,
    headers: Headers,
    token: Mutex<Option<Token>>,
    /// Held by whoever asks.
    asking: tokio::sync::Mutex<Asking>,
}

impl fmt::Debug for OAuth2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OAuth2").field("target", &self.target).finish_non_exhaustive()
    }
}

/// A token, while it may be used.
#[derive(Clone)]
pub(crate) struct Token {
    line: HeaderValue,
    renewed_from: Instant,
    used_until: Instant,
}

/// What came of asking so far.
#[derive(Default)]
struct Asking {
    /// Why there was no token the last time, and when somebody may ask again.
    failed: Option<(String, Instant)>,
    /// How long it was then that nobody asked.
    pause: Duration,
    /// Until when a token that is refused is not replaced.
    settled_until: Option<Instant>,
}

impl OAuth2 {
    /// A client that has no token yet. A request for one takes `total` at most.
    pub fn new(credentials: &ClientCredentials, total: Duration) -> Self {
        let ClientCredentials { token_url, client_id, client_secret, scope, audience } =
            credentials;
        let timeouts = Timeouts {
            connect: Timeouts::default().connect.min(total),
            head: total,
            body: total,
            total,
        };
        let mut base = token_url.clone();
        base.set_path("");
        base.set_query(None);
        let target = Target::of_operator(base, timeouts);
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("scope", scope), ("audience", audience)] {
            form.extend_pairs(value.as_ref().map(|value| (name, value)));
        }
        let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
        // Each is encoded before both are: RFC 6749, section 2.3.1.
        let login = format!("{}:{}", encoded(client_id), encoded(client_secret));
        let line = |name: &str, value: &str| (name.to_owned(), Bytes::from(value.to_owned()));
        let request = Request {
            method: "POST".to_owned(),
            // A query is part of it (RFC 6749, section 3.2).
            target: token_url[Position::BeforePath..Position::AfterQuery].to_owned(),
            headers: Headers(vec![
                line("content-type", "application/x-www-form-urlencoded"),
                line("accept", "application/json"),
                line("accept-encoding", "identity"),
            ]),
            body: form.finish().into(),
        };
        Self {
            target: Arc::new(target),
            request: Arc::new(request),
            headers: Headers(vec![line(
                "authorization",
                &format!("Basic {}", STANDARD.encode(login)),
            )]),
            token: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// Where tokens are from.
    pub fn base(&self) -> &Url {
        &self.target.base
    }

    /// A token that may be used now. Without one nothing was sent, and trying again may help.
    pub(crate) async fn token(&self, upstream: &dyn Upstream) -> Result<Token, Failure> {
        self.token_by(upstream, &Instant::now).await
    }

    async fn token_by(
        &self,
        upstream: &dyn Upstream,
        now: &(dyn Fn() -> Instant + Sync),
    ) -> Result<Token, Failure> {
        let held = self.held();
        if let Some(token) = held.as_ref().filter(|it| now() < it.renewed_from) {
            return Ok(token.clone());
        }
        let usable = held.filter(|token| now() < token.used_until);
        let mut asking = match &usable {
            None => self.asking.lock().await,
            // One renews it, the others go on with what they have.
            Some(token) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(token.clone()),
            },
        };
        let begun = now();
        // Whoever waited may find what another one got, or that it got none.
        if let Some(token) = self.held().filter(|it| begun < it.renewed_from) {
            return Ok(token);
        }
        let why = match &asking.failed {
            Some((why, until)) if begun < *until => why.clone(),
            _ => match self.ask(upstream, begun).await {
                Ok(token) => {
                    asking.failed = None;
                    asking.pause = Duration::ZERO;
                    *self.lock() = Some(token.clone());
                    return Ok(token);
                }
                Err(why) => {
                    asking.pause = (asking.pause * 2).clamp(PAUSE, PAUSE_MAX);
                    asking.failed = Some((why.clone(), now() + asking.pause));
                    why
                }
            },
        };
        usable.ok_or_else(|| Failure {
            ending: Ending::Unsent,
            reached: Reached::Nothing,
            error: format!("no access token: {why}"),
            permanent: false,
            timings: Timings::default(),
        })
    }

    /// The upstream refused this token. Tells whether the next one is going to be another.
    pub(crate) async fn refused(&self, token: &Token) -> bool {
        self.refused_at(token, Instant::now()).await
    }

    async fn refused_at(&self, token: &Token, now: Instant) -> bool {
        let mut asking = self.asking.lock().await;
        if asking.settled_until.is_some_and(|until| now < until) {
            // It may have been sent with the one before.
            return self.held().is_some_and(|held| held.line != token.line);
        }
        let mut held = self.lock();
        if held.as_ref().is_some_and(|held| held.line == token.line) {
            *held = None;
            asking.settled_until = Some(now + REFUSED_AGAIN);
        }
        true
    }

    async fn ask(&self, upstream: &dyn Upstream, begun: Instant) -> Result<Token, String> {
        let whose = self.target.base.host_str().unwrap_or_default();
        let dispatch = Dispatch {
            target: Arc::clone(&self.target),
            request: Arc::clone(&self.request),
            headers: self.headers.clone(),
            doom: None,
        };
        let answer = match upstream.send(dispatch).await {
            Sent::Answered(answer) => collect(answer, ANSWER_BYTES_MAX).await,
            Sent::Failed(failure) => return Err(failure.error),
        };
        let answer = match answer.response {
            Some(response) if answer.ending == Ending::Answered && answer.rest.is_none() => {
                response
            }
            _ => return Err(format!("the answer of {whose} is no whole one")),
        };
        let said: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if answer.status != 200 {
            let code = said["error"].as_str().filter(|code| is_code(code));
            let code = code.map_or_else(String::new, |code| format!(" ({code})"));
            return Err(format!("{whose} answers {}{code}", answer.status));
        }
        let kind = said["token_type"].as_str().unwrap_or("bearer");
        let token = said["access_token"].as_str().filter(|token| !token.is_empty());
        let line = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let Some(mut line) = line.filter(|_| kind.eq_ignore_ascii_case("bearer")) else {
            return Err(format!("the answer of {whose} has no bearer token that can be sent"));
        };
        line.set_sensitive(true);
        let said = &said["expires_in"];
        let seconds = said.as_u64().or_else(|| said.as_str()?.parse().ok());
        let lives = seconds.map_or(UNSAID_LIFE, Duration::from_secs).min(LIFE_MAX);
        let margin = MARGIN_MAX.min(lives / 10);
        let used_until = begun + lives;
        Ok(Token { line, renewed_from: used_until - margin, used_until })
    }

    fn held(&self) -> Option<Token> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Token>> {
        // Nothing in here is half done when a panic could strike.
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Token {
    /// The value of `Authorization`.
    pub(crate) fn line(&self) -> &HeaderValue {
        &self.line
    }

    /// In the place of whatever stands in these headers.
    pub(crate) fn lay_on(&self, headers: &mut Headers) {
        headers.set("authorization", Bytes::copy_from_slice(self.line.as_bytes()));
    }
}

/// Whether this is one of the words that RFC 6749 has for what is wrong, and no text of anybody's.
fn is_code(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    text.len() <= 40 && text.bytes().all(fits)
}

#[cfg(test)]
mod tests;
