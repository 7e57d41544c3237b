//! What a provider has: where it does what (OpenID Connect Discovery 1.0), a token for a code, and the keys
//! that it signs with.
//!
//! All of it is asked for through the door. What is at the issuer's own host is the operator's word; where the
//! provider's own document leads elsewhere, the egress policy judges it as it does a caller's URL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use onceward::core::exchange::{Headers, Request};
use onceward::upstream::{Dispatch, Sent, Target, Timeouts, Trust, Upstream};
use serde_json::Value;
use tokio::sync::Mutex;
use url::form_urlencoded::{Serializer, byte_serialize};
use url::{Position, Url};

use super::Trouble;
use super::begun::Begun;
use super::claims::not_believed;
use super::token::{self, Key, Unsigned};
use crate::config::OidcConfig;

/// How long it is believed what a provider said of itself.
const FRESH: Duration = Duration::from_hours(1);

/// How long nobody asks again after it said nothing.
const PAUSE: Duration = Duration::from_secs(3);

/// How long an answer of a provider's may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// An identity provider.
pub(super) struct Provider {
    pub(super) config: Arc<OidcConfig>,
    upstream: Arc<dyn Upstream>,
    /// Held by whoever asks.
    places: Mutex<Asked<Places>>,
    keys: Mutex<Asked<Vec<Key>>>,
}

/// What a code was good for.
pub(super) struct Granted {
    pub(super) id_token: String,
    pub(super) access_token: Option<String>,
}

/// What was asked for, and when; or why it did not come.
enum Asked<T> {
    Never,
    At(Instant, Arc<T>),
    Failed(Instant, Trouble),
}

/// Where a provider does what.
struct Places {
    authorization: Url,
    token: Url,
    keys: Url,
    userinfo: Option<Url>,
    end_session: Option<Url>,
    /// Whether a client's secret goes into the form, and not into `Authorization`.
    wants_secret_in_form: bool,
    /// Whether it says with each answer who it is: RFC 9207.
    says_issuer: bool,
}

impl<T> Asked<T> {
    /// What is known, or known to be away.
    fn known(&self) -> Option<Result<Arc<T>, Trouble>> {
        match self {
            Self::At(at, known) if at.elapsed() < FRESH => Some(Ok(Arc::clone(known))),
            Self::Failed(at, why) if at.elapsed() < PAUSE => Some(Err(why.clone())),
            _ => None,
        }
    }

    /// Takes what came; what was known before is better than nothing.
    fn take(&mut self, came: Result<T, Trouble>) -> Result<Arc<T>, Trouble> {
        match (came, &*self) {
            (Ok(fresh), _) => {
                let fresh = Arc::new(fresh);
                *self = Self::At(Instant::now(), Arc::clone(&fresh));
                Ok(fresh)
            }
            (Err(_), Self::At(_, known)) => Ok(Arc::clone(known)),
            (Err(why), _) => {
                *self = Self::Failed(Instant::now(), why.clone());
                Err(why)
            }
        }
    }
}

impl Provider {
    pub(super) fn new(config: Arc<OidcConfig>, upstream: Arc<dyn Upstream>) -> Self {
        let (places, keys) = (Mutex::new(Asked::Never), Mutex::new(Asked::Never));
        Self { config, upstream, places, keys }
    }

    /// Where a browser goes to log in.
    pub(super) async fn authorization(&self, begun: &Begun) -> Result<Url, Trouble> {
        let mut to = self.places().await?.authorization.clone();
        to.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.config.client_id)
            .append_pair("redirect_uri", &begun.redirect)
            .append_pair("scope", &self.config.scopes.join(" "))
            .append_pair("state", &begun.state)
            .append_pair("nonce", &begun.nonce)
            .append_pair("code_challenge", &begun.challenge())
            .append_pair("code_challenge_method", "S256");
        Ok(to)
    }

    /// Where it logs out too; as far as that is known.
    pub(super) async fn way_out(&self, base: &str) -> Option<Url> {
        let places = self.places.lock().await.known()?.ok()?;
        let mut to = places.end_session.clone()?;
        to.query_pairs_mut()
            .append_pair("client_id", &self.config.client_id)
            .append_pair("post_logout_redirect_uri", &format!("{base}/login"));
        Some(to)
    }

    /// That what came back is of this provider, and not of another that led the browser here.
    pub(super) async fn check_issuer(&self, said: Option<&str>) -> Result<(), Trouble> {
        let is_wanted = self.places().await?.says_issuer;
        match said {
            Some(issuer) if issuer == self.config.issuer => Ok(()),
            None if !is_wanted => Ok(()),
            _ => Err(not_believed("it comes from another issuer")),
        }
    }

    /// What a code is good for.
    pub(super) async fn exchange(&self, code: &str, begun: &Begun) -> Result<Granted, Trouble> {
        let places = self.places().await?;
        let (headers, form) = self.redemption(code, begun, places.wants_secret_in_form);
        let (status, answer) = self.ask("POST", &places.token, headers, form.into()).await?;
        if status != 200 {
            return Err(Trouble::refused(
                "The identity provider does not take the code: it is used, too old, or not ours. Begin the login again.",
            ));
        }
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        let id_token = text("id_token").ok_or_else(|| not_believed("there is no ID token"))?;
        Ok(Granted { id_token, access_token: text("access_token") })
    }

    /// What the provider tells of somebody beside the ID token, where it has a place for that: Core,
    /// section 5.3.
    pub(super) async fn told_beside(
        &self,
        access_token: &str,
        subject: &str,
    ) -> Result<Option<Value>, Trouble> {
        let places = self.places().await?;
        let Some(url) = &places.userinfo else { return Ok(None) };
        if HeaderValue::from_str(access_token).is_err() {
            return Err(not_believed("its access token is none"));
        }
        let mut headers = Headers::default();
        headers.set("authorization", format!("Bearer {access_token}"));
        let (status, told) = self.ask("GET", url, headers, Bytes::new()).await?;
        if status != 200 {
            return Err(Trouble::Provider(format!("{url} answers {status}")));
        }
        // Section 5.3.2: it may be somebody else's.
        if told["sub"].as_str() != Some(subject) {
            return Err(not_believed("what it tells beside is of somebody else"));
        }
        Ok(Some(told))
    }

    /// What a code is redeemed with: RFC 6749, section 4.1.3, and RFC 7636, section 4.5.
    fn redemption(&self, code: &str, begun: &Begun, secret_in_form: bool) -> (Headers, String) {
        let mut form = Serializer::new(String::new());
        form.append_pair("grant_type", "authorization_code")
            .append_pair("code", code)
            .append_pair("redirect_uri", &begun.redirect)
            .append_pair("code_verifier", &begun.verifier);
        let mut headers = Headers::default();
        let id = &self.config.client_id;
        match &self.config.client_secret {
            Some(secret) if secret_in_form => {
                form.append_pair("client_id", id).append_pair("client_secret", secret);
            }
            Some(secret) => {
                // Each is encoded before both are: RFC 6749, section 2.3.1.
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let login = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret)));
                headers.set("authorization", format!("Basic {login}"));
            }
            None => {
                form.append_pair("client_id", id);
            }
        }
        headers.set("content-type", "application/x-www-form-urlencoded");
        (headers, form.finish())
    }

    /// What a token says, where a key of the provider's has signed it. One that is not known may be new.
    pub(super) async fn verified(&self, token: &str) -> Result<Value, Trouble> {
        let believed = match token::verified(token, &self.keys(false).await?) {
            Err(Unsigned::KeyUnknown | Unsigned::Signature) => {
                token::verified(token, &self.keys(true).await?)
            }
            done => done,
        };
        believed.map_err(not_believed)
    }

    /// Its keys, as they are known or, where `anew`, as they are now.
    async fn keys(&self, anew: bool) -> Result<Arc<Vec<Key>>, Trouble> {
        let places = self.places().await?;
        let mut asked = self.keys.lock().await;
        if let Some(known) = asked.known().filter(|_| !anew) {
            return known;
        }
        let came = self.read(&places.keys).await;
        asked.take(came.map(|set| token::keys(&set)))
    }

    async fn places(&self) -> Result<Arc<Places>, Trouble> {
        let mut asked = self.places.lock().await;
        if let Some(known) = asked.known() {
            return known;
        }
        let came = self.discover().await;
        asked.take(came)
    }

    async fn discover(&self) -> Result<Places, Trouble> {
        let issuer = &self.config.issuer;
        let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let at = Url::parse(&at).map_err(|error| Trouble::Provider(error.to_string()))?;
        let document = self.read(&at).await?;
        // Discovery, section 4.3.
        if document["issuer"].as_str() != Some(issuer) {
            let own = document["issuer"].as_str().unwrap_or("nothing");
            return Err(Trouble::Provider(format!(
                "it calls itself {own:?}, and [oidc] issuer {issuer:?}"
            )));
        }
        let needed = |name: &str| {
            self.place(&document, name).ok_or_else(|| {
                Trouble::Provider(format!("its document has no {name} that can be used"))
            })
        };
        let methods = &document["token_endpoint_auth_methods_supported"];
        let takes = |method: &str| {
            methods.as_array().is_some_and(|methods| methods.iter().any(|it| it == method))
        };
        Ok(Places {
            authorization: needed("authorization_endpoint")?,
            token: needed("token_endpoint")?,
            keys: needed("jwks_uri")?,
            userinfo: self.place(&document, "userinfo_endpoint"),
            end_session: self.place(&document, "end_session_endpoint"),
            // Where it says nothing it takes the other (section 3).
            wants_secret_in_form: !takes("client_secret_basic") && takes("client_secret_post"),
            says_issuer: document["authorization_response_iss_parameter_supported"] == true,
        })
    }

    /// A place that the provider's document names: as safe to speak with as the issuer is.
    fn place(&self, document: &Value, name: &str) -> Option<Url> {
        let url = Url::parse(document[name].as_str()?).ok()?;
        let is_open = self.config.issuer.starts_with("http://") && self.is_issuers(&url);
        let is_safe = url.scheme() == "https" || (url.scheme() == "http" && is_open);
        (is_safe && url.has_host() && url.username().is_empty() && url.password().is_none())
            .then_some(url)
    }

    fn is_issuers(&self, url: &Url) -> bool {
        Url::parse(&self.config.issuer).is_ok_and(|issuer| issuer.host() == url.host())
    }

    async fn read(&self, url: &Url) -> Result<Value, Trouble> {
        let (status, document) = self.ask("GET", url, Headers::default(), Bytes::new()).await?;
        if status == 200 {
            return Ok(document);
        }
        Err(Trouble::Provider(format!("{url} answers {status}")))
    }

    /// One question, and its answer; what is no JSON says nothing.
    async fn ask(
        &self,
        method: &str,
        url: &Url,
        mut headers: Headers,
        body: Bytes,
    ) -> Result<(u16, Value), Trouble> {
        let mut base = url.clone();
        base.set_path("");
        base.set_query(None);
        let trust = if self.is_issuers(url) { Trust::Operator } else { Trust::Caller };
        let timeouts = Timeouts {
            connect: Timeouts::default().connect,
            head: TIMEOUT,
            body: TIMEOUT,
            total: TIMEOUT,
        };
        headers.set("accept", "application/json");
        headers.set("accept-encoding", "identity");
        let dispatch = Dispatch {
            target: Arc::new(Target { trust, ..Target::of_operator(base, timeouts) }),
            request: Arc::new(Request {
                method: method.to_owned(),
                target: url[Position::BeforePath..Position::AfterQuery].to_owned(),
                headers,
                body,
            }),
            headers: Headers::default(),
            doom: None,
        };
        let away = |error: &dyn std::fmt::Display| Trouble::Provider(error.to_string());
        let mut answer = match self.upstream.send(dispatch).await {
            Sent::Answered(answer) => answer,
            Sent::Failed(failure) => return Err(away(&failure)),
        };
        let mut body = Vec::new();
        while let Some(piece) = answer.body.chunk().await.map_err(|failure| away(&failure))? {
            if body.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(away(&format!("{url} answers more than {ANSWER_BYTES_MAX} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok((answer.status, serde_json::from_slice(&body).unwrap_or_default()))
    }
}
