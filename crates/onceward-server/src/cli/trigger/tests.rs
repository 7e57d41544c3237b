use std::collections::HashSet;

use onceward::core::exchange::Headers;
use onceward::core::time::Timestamp;
use onceward::webhook::{Delivery, Document, Scheme, TOLERANCE, Verifier};

use super::*;

const SECRET: &str = "whsec_Y2FuYXJ5LW9mLTI0LWJ5dGVzLWlzLW1l";
const SECONDS: i64 = 1_700_000_000;

fn scheme(name: &str) -> Scheme {
    match name {
        "standard-webhooks" => Scheme::StandardWebhooks,
        "svix" => Scheme::Svix,
        "stripe" => Scheme::Stripe,
        "github" => Scheme::Github,
        "slack" => Scheme::Slack,
        "shopify" => Scheme::Shopify,
        "twilio" => Scheme::Twilio,
        other => panic!("{other}"),
    }
}

#[test]
fn every_sample_is_verified_by_a_source_of_its_scheme_and_has_its_id_there() {
    let at = jiff::Timestamp::from_second(SECONDS).unwrap();
    let mut seen = HashSet::new();
    for sample in samples::ALL {
        let id = new_id(sample.scheme);
        let body = sample.body(&id, sample.event, at).into_bytes();
        let is_form = samples::is_form(sample.scheme, sample.event, &body);
        let url = "https://127.0.0.1:7077/in/s".to_owned();
        let draft = Draft {
            scheme: sample.scheme,
            event: sample.event,
            id: &id,
            url: url.clone(),
            seconds: SECONDS,
            body: &body,
            is_form,
        };
        let mut headers = Headers::default();
        if is_form {
            headers.set("content-type", "application/x-www-form-urlencoded");
        } else {
            assert!(serde_json::from_slice::<serde_json::Value>(&body).is_ok(), "{sample:?}");
        }
        for (name, value) in sign(&draft, SECRET).unwrap() {
            headers.set(name, value);
        }
        let scheme = scheme(sample.scheme);
        let ids = scheme.ids();
        let verifier = Verifier::new(scheme, &[SECRET], TOLERANCE).unwrap();
        let delivery = Delivery { url: &url, headers: &headers, body: &body };
        let now = Timestamp::from_micros(SECONDS * 1_000_000);
        assert!(verifier.verify(delivery, now).is_ok(), "{sample:?}");
        let other = Verifier::new(
            verifier.scheme().clone(),
            &["whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
            TOLERANCE,
        )
        .unwrap();
        assert!(other.verify(delivery, now).is_err(), "{sample:?}");
        let document = Document::new(delivery);
        let found = ids
            .iter()
            .find_map(|places| places.iter().map(|at| document.at(at)).collect::<Option<Vec<_>>>());
        assert!(found.is_some_and(|found| found[0].contains(&id)), "{sample:?} has its id");
        assert!(seen.insert((sample.scheme, sample.event)), "{sample:?} is there twice");
    }
    for scheme in SCHEMES {
        assert!(first_of(scheme).is_some(), "{scheme} has a sample");
    }
}

#[test]
fn what_there_is_no_sample_of_is_refused_with_those_that_there_are() {
    assert_eq!(read("stripe:charge.refunded").unwrap(), ("stripe", "charge.refunded"));
    for (wrong, what) in [
        ("strip:x", "stripe"),
        ("stripe", "which event"),
        ("stripe:", "which event"),
        ("hmac:x", "alone"),
    ] {
        assert!(read(wrong).unwrap_err().message.contains(what), "{wrong}");
    }
    assert!(sample("stripe", "no.such").unwrap_err().message.contains("charge.refunded"));
    assert!(sample("standard-webhooks", "anything.of.mine").is_ok());
}
