//! Logging in with an identity provider: OpenID Connect Core 1.0, the authorization code flow, with PKCE,
//! `state` and `nonce`. Who somebody is, is what an ID token says that the provider signed for us, for this
//! very login, and what it tells of the same person when it is asked; nothing else is believed.
//!
//! What the provider has is asked for by `provider`, through the door like every other call; `token` has the
//! signatures, `claims` what a token has to say, `begun` what a browser keeps while a login is under way.

mod begun;
mod claims;
mod provider;
mod token;

use std::sync::{Arc, PoisonError, RwLock};

use onceward::secret::Secrets;
use onceward::upstream::Upstream;
use url::Url;

use self::begun::{Begun, Consumed};
use self::claims::Expected;
pub(crate) use self::claims::Identity;
use self::provider::Provider;
use crate::config::OidcConfig;

/// Where a login begins.
pub(crate) const BEGIN: &str = "/login/oidc";

/// Where the provider sends the browser back to.
pub(crate) const CALLBACK: &str = "/login/oidc/callback";

/// Why nobody was logged in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// The provider is away, or is none.
    #[error("The identity provider cannot be asked: {0}.")]
    Provider(String),
    /// What came is not believed, or not allowed.
    #[error("{0}")]
    Refused(String),
}

impl Trouble {
    fn refused(why: impl Into<String>) -> Self {
        Self::Refused(why.into())
    }
}

/// The provider of this moment, where there is one.
pub(crate) struct Oidc {
    upstream: Arc<dyn Upstream>,
    provider: RwLock<Option<Arc<Provider>>>,
    consumed: Consumed,
}

/// A login that begins: where the browser goes, and the cookie that it keeps.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) to: Url,
    pub(crate) cookie: String,
}

/// What the provider sends a browser back with.
#[derive(Debug, Default, serde::Deserialize)]
pub(crate) struct Returned {
    code: Option<String>,
    state: Option<String>,
    /// Who says so: RFC 9207.
    iss: Option<String>,
    error: Option<String>,
}

impl Oidc {
    pub(crate) fn new(upstream: Arc<dyn Upstream>, config: Option<Arc<OidcConfig>>) -> Self {
        let oidc = Self { upstream, provider: RwLock::default(), consumed: Consumed::default() };
        oidc.follow(config);
        oidc
    }

    /// Goes by another configuration from now on.
    pub(crate) fn follow(&self, config: Option<Arc<OidcConfig>>) {
        let mut provider = self.provider.write().unwrap_or_else(PoisonError::into_inner);
        let is_same = provider.as_ref().map(|it| &it.config) == config.as_ref();
        if !is_same {
            *provider = config.map(|it| Arc::new(Provider::new(it, Arc::clone(&self.upstream))));
        }
    }

    fn provider(&self) -> Option<Arc<Provider>> {
        self.provider.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn needed(&self) -> Result<Arc<Provider>, Trouble> {
        self.provider().ok_or_else(|| Trouble::refused("There is no identity provider here."))
    }

    /// What the way in is called, where there is one.
    pub(crate) fn name(&self) -> Option<String> {
        Some(self.provider()?.config.name.clone())
    }

    /// Where one logs out at the provider too, and comes back to `base` from; as far as it has said so.
    pub(crate) async fn way_out(&self, base: &str) -> Option<Url> {
        self.provider()?.way_out(base).await
    }

    /// Begins a login by which somebody goes on to `next`; `base` is where the browser reaches us.
    pub(crate) async fn begin(
        &self,
        base: &str,
        next: &str,
        secrets: &Secrets,
    ) -> Result<Leaving, Trouble> {
        let provider = self.needed()?;
        let redirect = match &provider.config.redirect_url {
            Some(url) => url.to_string(),
            None => format!("{base}{CALLBACK}"),
        };
        let begun = Begun::new(redirect, next);
        let to = provider.authorization(&begun).await?;
        Ok(Leaving { to, cookie: begun.sealed(secrets) })
    }

    /// Ends the login that `cookie` is of: who that is, and where they go on to.
    pub(crate) async fn finish(
        &self,
        cookie: Option<&str>,
        returned: Returned,
        secrets: &Secrets,
    ) -> Result<(Identity, String), Trouble> {
        let provider = self.needed()?;
        let begun = cookie.and_then(|cookie| Begun::opened(cookie, secrets));
        let begun = begun.filter(|begun| begun.is_answered_by(returned.state.as_deref()));
        let begun = begun.filter(|begun| self.consumed.take(&begun.state));
        let begun = begun.ok_or_else(|| {
            Trouble::refused("This login was not begun in this browser, took longer than ten minutes, or has ended already. Begin it again.")
        })?;
        provider.check_issuer(returned.iss.as_deref()).await?;
        if let Some(error) = returned.error {
            let plain = error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            let error = if plain && error.len() <= 64 { error } else { "an error".to_owned() };
            return Err(Trouble::refused(format!("The identity provider says {error}.")));
        }
        let code =
            returned.code.ok_or_else(|| Trouble::refused("The identity provider sent no code."))?;
        let granted = provider.exchange(&code, &begun).await?;
        let mut claims = provider.verified(&granted.id_token).await?;
        let expected = Expected {
            issuer: &provider.config.issuer,
            client_id: &provider.config.client_id,
            nonce: &begun.nonce,
            now: crate::shape::now().as_micros() / 1_000_000,
        };
        expected.check(&claims)?;
        // Some put nothing but the subject into a token.
        if let Some(access_token) = granted.access_token
            && claims::is_lacking(&claims, &provider.config)
        {
            let subject = claims::subject(&claims)?;
            let told = provider.told_beside(&access_token, subject).await?;
            claims::add(&mut claims, told);
        }
        Ok((claims::identity(&claims, &provider.config)?, begun.next))
    }
}
