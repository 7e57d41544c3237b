//! A subscription as a row of the ledger: what is secret in it is sealed for its name. How its receiver
//! does is a row beside it (`health`).

use std::time::Duration;

use bytes::Bytes;
use onceward_core::event::{Filter, Selection, TypePattern};
use onceward_core::exchange::Headers;
use onceward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Destination, SignatureNames, Signing, Subscription, Wish};
use crate::secret::Secrets;
use crate::setting;
use crate::store::StoreError;

/// The shape of a row.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Row {
    version: u8,
    tenant: String,
    url: Option<String>,
    route: Option<(String, String)>,
    types: Vec<String>,
    /// As JSON.
    filter: Option<String>,
    /// In microseconds.
    delays: Vec<u64>,
    names: u8,
    is_enabled: bool,
    description: String,
    created_at: i64,
    changed_at: i64,
    count: u32,
    /// A [`Secret`].
    sealed: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Secret {
    headers: Vec<(String, Vec<u8>)>,
    signing: Vec<(Vec<u8>, Option<i64>)>,
}

/// The row of a subscription, under its setting's name.
pub(super) fn encode(
    setting: &str,
    subscription: &Subscription,
    secrets: &Secrets,
) -> Result<Bytes, StoreError> {
    let Subscription { wish, .. } = subscription;
    let line = |(name, value): &(String, Bytes)| (name.clone(), value.to_vec());
    let until =
        |signing: &Signing| (signing.secret.clone(), signing.until.map(Timestamp::as_micros));
    let secret = setting::encode(&Secret {
        headers: wish.headers.0.iter().map(line).collect(),
        signing: subscription.signing.iter().map(until).collect(),
    })?;
    let (url, route) = match &wish.to {
        Destination::Url(url) => (Some(url.to_string()), None),
        Destination::Route { name, target } => (None, Some((name.clone(), target.clone()))),
    };
    let micros = |delay: &Duration| u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
    setting::encode(&Row {
        version: VERSION,
        tenant: subscription.tenant.clone(),
        url,
        route,
        types: wish.selection.types.iter().map(|it| it.as_str().to_owned()).collect(),
        filter: wish.selection.filter.as_ref().map(|filter| filter.source().to_string()),
        delays: wish.delays.iter().map(micros).collect(),
        names: match wish.names {
            SignatureNames::Standard => 0,
            SignatureNames::Svix => 1,
        },
        is_enabled: wish.is_enabled,
        description: wish.description.clone(),
        created_at: subscription.created_at.as_micros(),
        changed_at: subscription.changed_at.as_micros(),
        count: subscription.version,
        sealed: secrets.seal(&secret, setting.as_bytes()),
    })
}

/// The subscription that is kept under `setting`; nothing where a later release wrote it.
pub(super) fn decode(
    setting: &str,
    value: &[u8],
    secrets: &Secrets,
) -> Result<Option<Subscription>, StoreError> {
    if value.first().is_some_and(|version| *version > VERSION) {
        return Ok(None);
    }
    let row: Row = setting::decode(setting, value)?;
    let damaged = |why: &dyn std::fmt::Display| setting::damaged(setting, why);
    let opened = secrets.open_or_wait(&row.sealed, setting.as_bytes())?;
    let secret: Secret = setting::decode(setting, &opened)?;
    let to = match (row.url, row.route) {
        (Some(url), None) => Destination::Url(url.parse().map_err(|error| damaged(&error))?),
        (None, Some((name, target))) => Destination::Route { name, target },
        _ => return Err(damaged(&"it goes nowhere")),
    };
    let types = row.types.iter().map(|text| TypePattern::new(text));
    let types = types.collect::<Result<_, _>>().map_err(|error| damaged(&error))?;
    let filter = match row.filter {
        None => None,
        Some(text) => {
            let source = serde_json::from_str(&text).map_err(|error| damaged(&error))?;
            Some(Filter::read(&source).map_err(|error| damaged(&error))?)
        }
    };
    let header = |(name, value): (String, Vec<u8>)| (name, Bytes::from(value));
    let signing = |(secret, until): (Vec<u8>, Option<i64>)| Signing {
        secret,
        until: until.map(Timestamp::from_micros),
    };
    Ok(Some(Subscription {
        name: super::name_of_route(setting).unwrap_or_default().to_owned(),
        tenant: row.tenant,
        wish: Wish {
            to,
            selection: Selection { types, filter },
            headers: Headers(secret.headers.into_iter().map(header).collect()),
            delays: row.delays.into_iter().map(Duration::from_micros).collect(),
            names: if row.names == 1 { SignatureNames::Svix } else { SignatureNames::Standard },
            is_enabled: row.is_enabled,
            description: row.description,
        },
        signing: secret.signing.into_iter().map(signing).collect(),
        created_at: Timestamp::from_micros(row.created_at),
        changed_at: Timestamp::from_micros(row.changed_at),
        version: row.count,
        failing_since: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_subscription_comes_back_whole_and_its_secrets_are_sealed_for_its_name() {
        let secrets = Secrets::new([1; 32]);
        let filter = Filter::read(&json!({"json": {"/data/n": {"gt": 1}}})).unwrap();
        let at = Timestamp::from_micros(1_795_305_600_000_000);
        let to = Destination::Url("https://receiver.example/hooks?a=b".parse().unwrap());
        let subscription = Subscription {
            name: "sub_1".to_owned(),
            tenant: "acme".to_owned(),
            wish: Wish {
                selection: Selection {
                    types: vec![TypePattern::new("order.*").unwrap()],
                    filter: Some(filter),
                },
                headers: Headers(vec![("authorization".to_owned(), "canary-header".into())]),
                names: SignatureNames::Svix,
                is_enabled: false,
                description: "billing".to_owned(),
                ..Wish::new(to)
            },
            signing: vec![
                Signing { secret: b"canary-secret-of-24-bytes".to_vec(), until: None },
                Signing { secret: vec![7; 24], until: Some(at) },
            ],
            created_at: at,
            changed_at: at,
            version: 3,
            failing_since: None,
        };
        let row = encode("subscription/sub_1", &subscription, &secrets).unwrap();
        assert!(!row.windows(6).any(|window| window == b"canary"), "it is in the clear");
        let read = |name: &str| decode(name, &row, &secrets);
        assert_eq!(read("subscription/sub_1").unwrap(), Some(subscription.clone()));
        assert!(read("subscription/sub_2").is_err(), "it opens as another's");
        assert!(!format!("{subscription:?}").contains("canary-secret"));
        let mut later = row.to_vec();
        later[0] = VERSION + 1;
        assert_eq!(decode("subscription/sub_1", &later, &secrets).unwrap(), None);
    }
}
