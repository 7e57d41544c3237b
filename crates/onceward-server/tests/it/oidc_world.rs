//! An identity provider over loopback: discovery, codes for whoever asks, tokens that are really signed, and
//! keys that change. It tells lies where it is asked to.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use onceward_proof::line::{Line, Message};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use url::{Url, form_urlencoded};

use crate::guard_world::{listening, written};

pub(crate) const CLIENT: &str = "onceward";
pub(crate) const SECRET: &str = "a secret: with % and +";

/// How it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Rs256,
    Es256,
    EdDsa,
}

/// What is wrong with what it says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Lie {
    None,
    /// Another value of a claim.
    Claim(&'static str, Value),
    /// Signed by nobody.
    Unsigned,
    /// Signed by a secret that is its public key.
    ByPublicKey,
    /// Signed by somebody else, who names its key.
    ByStranger,
    /// Signed by somebody else, who names one of his own.
    ByUnknown,
    /// Signed, and changed since.
    Changed,
    /// It calls itself otherwise in its answers.
    Issuer(&'static str),
    /// It calls itself otherwise in its own document.
    Document(&'static str, Value),
}

enum Signing {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

struct Pair {
    id: String,
    signing: Signing,
}

/// A code that was given out.
struct Code {
    nonce: String,
    challenge: String,
    redirect: String,
}

struct Inside {
    issuer: String,
    algorithm: Algorithm,
    pair: Pair,
    user: Value,
    codes: HashMap<String, Code>,
    given: u32,
    lie: Lie,
    /// What it was asked, by path.
    asked: Vec<String>,
    /// Whether a secret goes into the form.
    in_form: bool,
    /// Whether a token has nothing but the subject; and of whom it tells beside.
    thin: Option<&'static str>,
}

/// A running provider; it ends with the test.
pub(crate) struct Provider {
    pub(crate) address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    _runtime: Runtime,
}

impl Provider {
    pub(crate) fn start(algorithm: Algorithm) -> Self {
        let (runtime, listener, address) = listening();
        let inside = Arc::new(Mutex::new(Inside {
            issuer: format!("http://{address}/realms/main"),
            algorithm,
            pair: Pair::new(algorithm, "key-1"),
            user: json!({"sub": "u-1", "email": "ada@example.com", "email_verified": true, "groups": ["oncall"]}),
            codes: HashMap::new(),
            given: 0,
            lie: Lie::None,
            asked: Vec::new(),
            in_form: false,
            thin: None,
        }));
        let serving = Arc::clone(&inside);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inside = Arc::clone(&serving);
                tokio::spawn(async move {
                    let mut line = Line::new(stream);
                    // A connection that ends badly ends alone.
                    while let Ok(Some(request)) = line.read().await {
                        let answer = inside.lock().unwrap().answer(&request);
                        if line.write(&answer).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, inside, _runtime: runtime }
    }

    /// What the gateway is told of it.
    pub(crate) fn config(&self, lines: &str) -> String {
        format!(
            "demo = true\n[oidc]\nissuer = {:?}\nclient_id = {CLIENT:?}\nclient_secret = {SECRET:?}\nname = \"Example\"\n{lines}\n\
             [[oidc.roles]]\nclaim = \"groups\"\nvalue = \"oncall\"\nroles = [\"read\", \"operate\"]\n",
            self.issuer()
        )
    }

    pub(crate) fn issuer(&self) -> String {
        self.inside.lock().unwrap().issuer.clone()
    }

    /// Says this from now on.
    pub(crate) fn lie(&self, lie: Lie) {
        self.inside.lock().unwrap().lie = lie;
    }

    /// Whoever logs in has another value of a claim from now on.
    pub(crate) fn user(&self, claim: &str, value: Value) {
        self.inside.lock().unwrap().user[claim] = value;
    }

    /// Signs with another key from now on, and publishes no other.
    pub(crate) fn rotate(&self, id: &str) {
        let mut inside = self.inside.lock().unwrap();
        inside.pair = Pair::new(inside.algorithm, id);
    }

    /// Takes the client's secret in the form from now on, and nowhere else.
    pub(crate) fn take_secret_in_form(&self) {
        self.inside.lock().unwrap().in_form = true;
    }

    /// Says of a person in a token nothing but who it is, from now on, and the rest of `subject` when it is
    /// asked.
    pub(crate) fn tell_beside(&self, subject: &'static str) {
        self.inside.lock().unwrap().thin = Some(subject);
    }

    /// How often it was asked for this path.
    pub(crate) fn asked(&self, path: &str) -> usize {
        self.inside.lock().unwrap().asked.iter().filter(|asked| *asked == path).count()
    }
}

impl Pair {
    fn new(algorithm: Algorithm, id: &str) -> Self {
        let signing = match algorithm {
            Algorithm::Rs256 => Signing::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()),
            Algorithm::Es256 => {
                Signing::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
            }
            Algorithm::EdDsa => Signing::Ed(Ed25519KeyPair::generate().unwrap()),
        };
        Self { id: id.to_owned(), signing }
    }

    fn public(&self) -> Vec<u8> {
        match &self.signing {
            Signing::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Signing::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Signing::Ed(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    fn jwk(&self) -> Value {
        let public = self.public();
        let mut key = match &self.signing {
            Signing::Rsa(_) => {
                // RSAPublicKey: a modulus of 2048 bits after 9 bytes of head, and 65537 at the end.
                json!({"kty": "RSA", "n": encode(&public[9..265]), "e": encode(&public[267..])})
            }
            Signing::Ec(_) => {
                json!({"kty": "EC", "crv": "P-256", "x": encode(&public[1..33]), "y": encode(&public[33..])})
            }
            Signing::Ed(_) => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(&public)}),
        };
        key["kid"] = json!(self.id);
        key["use"] = json!("sig");
        key
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let chance = SystemRandom::new();
        match &self.signing {
            Signing::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &chance, message, &mut signature).unwrap();
                signature
            }
            Signing::Ec(pair) => pair.sign(&chance, message).unwrap().as_ref().to_vec(),
            Signing::Ed(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pairs(text: &str) -> HashMap<String, String> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

impl Inside {
    fn answer(&mut self, request: &Message) -> Vec<u8> {
        let target = request.start.split(' ').nth(1).unwrap().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        self.asked.push(path.to_owned());
        let json = |status, document: &Value| {
            let headers = [("content-type", "application/json".to_owned())];
            written(status, &headers, &document.to_string())
        };
        match path.strip_prefix("/realms/main").unwrap_or_default() {
            "/.well-known/openid-configuration" => json(200, &self.document()),
            "/keys" => {
                json(200, &json!({"keys": [{"kty": "oct", "k": "c2VjcmV0"}, self.pair.jwk()]}))
            }
            "/authorize" => {
                let back = self.authorize(&pairs(query));
                written(302, &[("location", back)], "")
            }
            "/token" => match self.token(request) {
                Ok(document) => json(200, &document),
                Err(why) => json(400, &json!({"error": "invalid_grant", "why": why})),
            },
            "/userinfo" if request.header("authorization") == Some("Bearer access-1") => {
                let mut told = self.user.clone();
                told["sub"] = json!(self.thin);
                json(200, &told)
            }
            _ => written(404, &[], ""),
        }
    }

    fn document(&self) -> Value {
        let at = |path: &str| format!("{}{path}", self.issuer);
        let methods = if self.in_form { "client_secret_post" } else { "client_secret_basic" };
        let mut document = json!({
            "issuer": self.issuer,
            "authorization_endpoint": at("/authorize?tenant=main"),
            "token_endpoint": at("/token"),
            "jwks_uri": at("/keys"),
            "end_session_endpoint": at("/logout"),
            "userinfo_endpoint": at("/userinfo"),
            "token_endpoint_auth_methods_supported": [methods],
            "authorization_response_iss_parameter_supported": true,
        });
        if let Lie::Document(name, value) = &self.lie {
            document[*name] = value.clone();
        }
        document
    }

    /// Nobody is asked anything: whoever comes is the one user.
    fn authorize(&mut self, asked: &HashMap<String, String>) -> String {
        assert_eq!(asked["tenant"], "main", "what was in the address stays");
        assert_eq!((&*asked["response_type"], &*asked["client_id"]), ("code", CLIENT));
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["scope"].split(' ').any(|scope| scope == "openid"));
        self.given += 1;
        let code = format!("code-{}", self.given);
        let kept = Code {
            nonce: asked["nonce"].clone(),
            challenge: asked["code_challenge"].clone(),
            redirect: asked["redirect_uri"].clone(),
        };
        self.codes.insert(code.clone(), kept);
        let mut back = Url::parse(&asked["redirect_uri"]).unwrap();
        let issuer = match self.lie {
            Lie::Issuer(other) => other,
            _ => &self.issuer,
        };
        back.query_pairs_mut()
            .append_pair("code", &code)
            .append_pair("state", &asked["state"])
            .append_pair("iss", issuer);
        back.to_string()
    }

    fn token(&mut self, request: &Message) -> Result<Value, &'static str> {
        let form = pairs(std::str::from_utf8(&request.body).unwrap());
        let authorized = if self.in_form {
            form.get("client_id").is_some_and(|id| id == CLIENT)
                && form.get("client_secret").is_some_and(|secret| secret == SECRET)
                && request.header("authorization").is_none()
        } else {
            let login =
                request.header("authorization").and_then(|line| line.strip_prefix("Basic "));
            let login = login.and_then(|login| STANDARD.decode(login).ok()).unwrap_or_default();
            let login = String::from_utf8(login).unwrap();
            let (id, secret) = login.split_once(':').unwrap_or_default();
            let decoded = |text: &str| pairs(&format!("x={text}"))["x"].clone();
            decoded(id) == CLIENT && decoded(secret) == SECRET
        };
        if !authorized {
            return Err("who are you?");
        }
        if form["grant_type"] != "authorization_code" {
            return Err("another grant");
        }
        let code = self.codes.remove(&form["code"]).ok_or("no such code")?;
        let challenge = digest::digest(&digest::SHA256, form["code_verifier"].as_bytes());
        if code.challenge != encode(challenge.as_ref()) || code.redirect != form["redirect_uri"] {
            return Err("not who asked for it");
        }
        Ok(
            json!({"access_token": "access-1", "token_type": "Bearer", "id_token": self.id_token(&code.nonce)}),
        )
    }

    fn id_token(&self, nonce: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut claims =
            if self.thin.is_some() { json!({"sub": "u-1"}) } else { self.user.clone() };
        for (name, value) in [
            ("iss", json!(self.issuer)),
            ("aud", json!(CLIENT)),
            ("nonce", json!(nonce)),
            ("iat", json!(now)),
            ("exp", json!(now + 300)),
        ] {
            claims[name] = value;
        }
        if let Lie::Claim(name, value) = &self.lie {
            claims[*name] = value.clone();
        }
        let algorithm = match self.algorithm {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        };
        let message = |algorithm: &str, key: &str, claims: &Value| {
            let head = json!({"alg": algorithm, "kid": key, "typ": "JWT"});
            format!(
                "{}.{}",
                encode(head.to_string().as_bytes()),
                encode(claims.to_string().as_bytes())
            )
        };
        let own = message(algorithm, &self.pair.id, &claims);
        let signed = |message: &str, signature: &[u8]| format!("{message}.{}", encode(signature));
        match self.lie {
            Lie::Unsigned => format!("{}.", message("none", &self.pair.id, &claims)),
            Lie::ByPublicKey => {
                let message = message("HS256", &self.pair.id, &claims);
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.pair.public());
                signed(&message, hmac::sign(&key, message.as_bytes()).as_ref())
            }
            Lie::ByStranger => {
                let stranger = Pair::new(self.algorithm, "stranger");
                signed(&own, &stranger.sign(own.as_bytes()))
            }
            Lie::ByUnknown => {
                let stranger = Pair::new(self.algorithm, "stranger");
                let message = message(algorithm, &stranger.id, &claims);
                signed(&message, &stranger.sign(message.as_bytes()))
            }
            Lie::Changed => {
                let signature = self.pair.sign(own.as_bytes());
                claims["groups"] = json!(["oncall", "chiefs"]);
                signed(&message(algorithm, &self.pair.id, &claims), &signature)
            }
            _ => signed(&own, &self.pair.sign(own.as_bytes())),
        }
    }
}
