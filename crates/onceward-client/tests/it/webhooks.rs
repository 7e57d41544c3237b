//! Webhooks: the providers' own examples; all SDKs are held to them.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName};
use onceward_client::testing::sign_webhook;
use onceward_client::webhook::Reason;
use onceward_client::{Scheme, Verified, VerifyOptions, WebhookError, verify_webhook};

#[derive(serde::Deserialize)]
struct Example {
    scheme: String,
    secret: String,
    at: u64,
    signs_time: bool,
    id: Option<String>,
    body: String,
    headers: HashMap<String, String>,
}

fn examples() -> Vec<Example> {
    let examples: Vec<_> =
        serde_json::from_str(include_str!("../../../../sdk/webhooks.json")).unwrap();
    assert!(examples.len() >= 6);
    examples
}

impl Example {
    fn scheme(&self) -> Scheme {
        match &*self.scheme {
            "standard-webhooks" => Scheme::StandardWebhooks,
            "svix" => Scheme::Svix,
            "stripe" => Scheme::Stripe,
            "github" => Scheme::Github,
            "slack" => Scheme::Slack,
            "shopify" => Scheme::Shopify,
            other => panic!("{other} is not known"),
        }
    }

    fn headers(&self) -> HeaderMap {
        let line = |(name, value): (&String, &String)| {
            (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())
        };
        self.headers.iter().map(line).collect()
    }

    fn verified(
        &self,
        body: &str,
        secrets: &[&str],
        seconds_off: i64,
    ) -> Result<Verified, WebhookError> {
        let now = UNIX_EPOCH + Duration::from_secs(self.at.saturating_add_signed(seconds_off));
        let options = VerifyOptions { now: Some(now), ..self.scheme().into() };
        verify_webhook(body.as_bytes(), &self.headers(), secrets, options)
    }
}

fn reason(refused: Result<Verified, WebhookError>) -> Option<&'static str> {
    refused.unwrap_err().reason().map(Reason::as_str)
}

#[test]
fn it_is_verified_as_its_provider_signs_it_and_nothing_else_is() {
    for example in examples() {
        let secrets = [&*example.secret];
        let said = example.verified(&example.body, &secrets, 0).unwrap();
        assert_eq!((&said.id, said.secret), (&example.id, 0), "{}", example.scheme);
        let other = format!("{} ", example.body);
        assert_eq!(reason(example.verified(&other, &secrets, 0)), Some("signature_mismatch"));
        if example.signs_time {
            assert_eq!(example.verified(&example.body, &secrets, 300).unwrap(), said);
            assert_eq!(reason(example.verified(&example.body, &secrets, 301)), Some("too_old"));
            assert_eq!(reason(example.verified(&example.body, &secrets, -301)), Some("too_new"));
        }
    }
}

#[test]
fn it_takes_an_old_and_a_new_secret_and_tells_which_one_fitted() {
    for example in examples() {
        let is_standard = matches!(example.scheme(), Scheme::StandardWebhooks | Scheme::Svix);
        let other =
            if is_standard { format!("whsec_{}", "A".repeat(32)) } else { "another".to_owned() };
        let said = example.verified(&example.body, &[&other, &example.secret], 0).unwrap();
        assert_eq!(said.secret, 1, "{}", example.scheme);
        assert_eq!(
            reason(example.verified(&example.body, &[&other], 0)),
            Some("signature_mismatch")
        );
    }
}

#[test]
fn it_says_which_header_is_missing_unreadable_or_there_twice() {
    for example in examples() {
        let whole = example.headers();
        let names: Vec<_> = whole.keys().cloned().collect();
        let is_signature = |name: &&HeaderName| {
            name.as_str().contains("signature") || name.as_str().contains("hmac")
        };
        let name = names.iter().find(is_signature).unwrap();
        let mut missing = whole.clone();
        missing.remove(name);
        let mut empty = missing.clone();
        empty.insert(name, "".parse().unwrap());
        let mut twice = whole.clone();
        twice.append(name, whole[name].clone());
        for (headers, word) in [
            (missing, "header_missing"),
            (empty, "header_unreadable"),
            (twice, "header_unreadable"),
        ] {
            let refused = verify_webhook(b"", &headers, &[&example.secret], example.scheme());
            assert!(refused.as_ref().is_err_and(|error| error.to_string().contains(name.as_str())));
            assert_eq!(reason(refused), Some(word), "{}", example.scheme);
        }
    }
}

#[test]
fn more_signatures_than_anybody_sends_are_not_tried() {
    let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    let mut headers = sign_webhook(b"{}", secret, "msg_1", SystemTime::now());
    assert!(verify_webhook(b"{}", &headers, &[secret], Scheme::StandardWebhooks).is_ok());
    let many = vec![headers["webhook-signature"].to_str().unwrap(); 17].join(" ");
    headers.insert("webhook-signature", many.parse().unwrap());
    let refused = verify_webhook(b"{}", &headers, &[secret], Scheme::StandardWebhooks);
    assert_eq!(reason(refused), Some("too_many_signatures"));
}

#[test]
fn a_secret_that_cannot_be_one_is_refused_before_anything_is_verified() {
    for secret in ["", "whsec_", "whsec_!", "whsec_AAAA", "whpk_AAAA", "whsk_AAAA"] {
        let refused = verify_webhook(b"", &HeaderMap::new(), &[secret], VerifyOptions::default());
        let error = refused.unwrap_err();
        assert!(matches!(error, WebhookError::Secret(_)), "{secret}: {error}");
    }
    let none: [&str; 0] = [];
    assert!(verify_webhook(b"", &HeaderMap::new(), &none, Scheme::Github).is_err());
}
