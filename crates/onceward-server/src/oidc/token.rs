//! Tokens that a provider has signed (RFC 7515, RFC 7517): which of its keys has signed one, and what it says.
//!
//! A key says by which algorithm it signs; a token only has to agree. So there is none that is signed by
//! nobody, and none by a secret that is a public key.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use onceward::sabotage::Sabotage;
use serde::Deserialize;
use serde_json::Value;

/// The longest token that is looked at.
const TOKEN_BYTES_MAX: usize = 64 << 10;

/// How many keys of a provider are looked at.
const KEYS_MAX: usize = 64;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsigned {
    #[error("it cannot be read")]
    Form,
    #[error("it wants to be understood in a way that we do not know")]
    Critical,
    #[error("none of the provider's keys is the one that it names, with its algorithm")]
    KeyUnknown,
    #[error("its signature does not hold")]
    Signature,
}

/// A public key of a provider's.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A key as it is published.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Those of a set of keys that can verify a signature here; the others are passed over.
pub(super) fn keys(set: &Value) -> Vec<Key> {
    let listed = set["keys"].as_array().into_iter().flatten().take(KEYS_MAX);
    listed.filter_map(|key| Key::read(Jwk::deserialize(key).ok()?)).collect()
}

impl Key {
    fn read(jwk: Jwk) -> Option<Self> {
        let public = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Public::Rsa { n: decode(&jwk.n?)?, e: decode(&jwk.e?)? },
            ("EC", Some("P-256")) => {
                let (x, y) = (decode(&jwk.x?)?, decode(&jwk.y?)?);
                if (x.len(), y.len()) != (32, 32) {
                    return None;
                }
                // SEC 1, section 2.3.3: not compressed.
                Public::P256([&[4], &x[..], &y[..]].concat())
            }
            ("OKP", Some("Ed25519")) => Public::Ed25519(decode(&jwk.x?)?),
            _ => return None,
        };
        let signs = jwk.r#use.is_none_or(|of| of == "sig");
        let agrees = jwk.alg.is_none_or(|named| public.is_named(&named));
        (signs && agrees).then_some(Self { id: jwk.kid, public })
    }
}

impl Public {
    /// Whether this is a name of the algorithm that it signs by; RFC 9864 has a second for one.
    fn is_named(&self, algorithm: &str) -> bool {
        match self {
            Self::Rsa { .. } => algorithm == "RS256",
            Self::P256(_) => algorithm == "ES256",
            Self::Ed25519(_) => matches!(algorithm, "EdDSA" | "Ed25519"),
        }
    }

    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Rsa { n, e } => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
        };
        verified.is_ok()
    }
}

/// What a token says, where one of `keys` has signed it.
pub(super) fn verified(token: &str, keys: &[Key]) -> Result<Value, Unsigned> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Unsigned::Form);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Unsigned::Form)?;
    let (head, claims) = message.split_once('.').ok_or(Unsigned::Form)?;
    let header: Header = json(head).ok_or(Unsigned::Form)?;
    if header.crit.is_some() {
        return Err(Unsigned::Critical);
    }
    let is_meant = |key: &&Key| {
        let is_named = header.kid.is_none() || key.id.is_none() || key.id == header.kid;
        is_named && key.public.is_named(&header.alg)
    };
    let mut meant = keys.iter().filter(is_meant).peekable();
    if meant.peek().is_none() {
        return Err(Unsigned::KeyUnknown);
    }
    let signature = decode(signature).ok_or(Unsigned::Form)?;
    let is_signed = meant.any(|key| key.public.has_signed(message.as_bytes(), &signature));
    if !is_signed && !Sabotage::TokenUnverified.is_on() {
        return Err(Unsigned::Signature);
    }
    json(claims).ok_or(Unsigned::Form)
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&decode(part)?).ok()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The example of RFC 7515, appendix A.3: ES256.
    const ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    fn es256() -> Value {
        json!({"kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"})
    }

    /// The example of RFC 8037, appendix A.4: Ed25519; what it says is no document.
    const EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    #[test]
    fn the_examples_of_the_standards_hold_and_no_letter_of_them_may_change() {
        let published = |key: Value| keys(&json!({"keys": [key]}));
        assert_eq!(verified(ES256, &published(es256())).unwrap()["iss"], "joe");
        for (at, letter) in ES256.char_indices() {
            // The last letter has bits that are nobody's.
            if letter == '.' || at == ES256.len() - 1 {
                continue;
            }
            let other = if letter == 'A' { "B" } else { "A" };
            let mut changed = ES256.to_owned();
            changed.replace_range(at..=at, other);
            assert!(verified(&changed, &published(es256())).is_err(), "{changed}");
        }
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        assert_eq!(verified(EDDSA, &published(ed)), Err(Unsigned::Form), "signed, and no claims");
        assert_eq!(verified(EDDSA, &published(es256())), Err(Unsigned::KeyUnknown));
    }

    #[test]
    fn a_key_says_by_which_algorithm_it_signs_and_what_for() {
        let mut key = es256();
        let is_taken = |key: &Value| keys(&json!({"keys": [key]})).len() == 1;
        assert!(is_taken(&key));
        key["use"] = json!("enc");
        assert!(!is_taken(&key));
        key["use"] = json!("sig");
        key["alg"] = json!("ES256");
        assert!(is_taken(&key));
        for other in ["HS256", "none", "RS256", "ES384"] {
            key["alg"] = json!(other);
            assert!(!is_taken(&key), "{other}");
        }
        assert!(!is_taken(&json!({"kty": "oct", "k": "c2VjcmV0"})), "a secret is no public key");
        assert!(keys(&json!({"keys": "x"})).is_empty() && keys(&json!(1)).is_empty());
    }

    #[test]
    fn what_has_no_signature_is_not_believed_whatever_it_is_called() {
        let keys = keys(&json!({"keys": [es256()]}));
        let claims = ES256.split('.').nth(1).unwrap();
        for alg in ["none", "None", "NONE", "HS256", "es256", ""] {
            let head = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
            assert_eq!(
                verified(&format!("{head}.{claims}."), &keys),
                Err(Unsigned::KeyUnknown),
                "{alg}"
            );
        }
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": "ES256", "crit": ["exp"]}).to_string());
        assert_eq!(verified(&format!("{head}.{claims}."), &keys), Err(Unsigned::Critical));
        let bare = ES256.rsplit_once('.').unwrap().0;
        assert_eq!(verified(&format!("{bare}."), &keys), Err(Unsigned::Signature));
        for other in ["", ".", "..", "a.b", &ES256.replace('.', ""), &format!("{ES256}.x")] {
            assert!(verified(other, &keys).is_err(), "{other}");
        }
    }
}
