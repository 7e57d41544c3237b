//! Where in a request its access key stands.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, header};

use super::key::BEGIN;

const OWN_KEY: HeaderName = HeaderName::from_static("onceward-authorization");

/// Our key, from its own header, or from `Authorization` where it is ours: a bearer token that
/// begins with `ow_`, or a password that does (what a browser asks for).
pub(super) fn take_key(headers: &mut HeaderMap) -> Option<String> {
    if let Some(own) = headers.remove(OWN_KEY) {
        return Some(
            own.to_str().unwrap_or_default().trim_start_matches("Bearer ").trim().to_owned(),
        );
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let key = match value.split_once(' ')? {
        (scheme, token) if scheme.eq_ignore_ascii_case("bearer") => token.trim().to_owned(),
        (scheme, token) if scheme.eq_ignore_ascii_case("basic") => {
            let pair = STANDARD.decode(token.trim()).ok()?;
            String::from_utf8(pair).ok()?.split_once(':')?.1.to_owned()
        }
        _ => return None,
    };
    if !key.starts_with(BEGIN) {
        return None;
    }
    headers.remove(header::AUTHORIZATION);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::browser::tests::headers;

    #[test]
    fn only_our_own_keys_are_taken_out() {
        let mut upstream = headers(&[("authorization", "Bearer sk_live_1")]);
        assert_eq!(take_key(&mut upstream), None);
        assert!(upstream.contains_key("authorization"), "the upstream's credential is passed on");
        let mut ours = headers(&[("authorization", "Bearer ow_1")]);
        assert_eq!(take_key(&mut ours).as_deref(), Some("ow_1"));
        assert!(!ours.contains_key("authorization"));
        let mut both =
            headers(&[("onceward-authorization", "Bearer ow_2"), ("authorization", "Bearer sk")]);
        assert_eq!(take_key(&mut both).as_deref(), Some("ow_2"));
        assert!(both.contains_key("authorization"));
        let basic = format!("Basic {}", STANDARD.encode("any:ow_3"));
        assert_eq!(take_key(&mut headers(&[("authorization", &basic)])).as_deref(), Some("ow_3"));
    }
}
