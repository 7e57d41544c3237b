use proptest::prelude::*;

use super::*;

const SVIX_SECRET: &str = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SVIX_PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const SVIX_BODY: &str = r#"{"test": 2432232314}"#;
const TWILIO_URL: &str = "https://mycompany.com/myapp.php?foo=1&bar=2";
const TWILIO_FORM: &str = "CallSid=CA1234567890ABCDE&Caller=%2B14158675309&Digits=1234&From=%2B14158675309&To=%2B18005551212";
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const SLACK_BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";

/// A webhook that is good at its time.
#[derive(Debug, Clone)]
pub(super) struct Example {
    scheme: Scheme,
    secrets: Vec<String>,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    seconds: i64,
}

impl Example {
    fn new(scheme: Scheme, secret: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let line = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            scheme,
            secrets: vec![secret.to_owned()],
            url: "https://us.example/in/a".to_owned(),
            headers: headers.iter().map(line).collect(),
            body: body.into(),
            seconds: 0,
        }
    }

    fn at(self, seconds: i64) -> Self {
        Self { seconds, ..self }
    }

    fn to(self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self }
    }

    fn verified_at(&self, seconds: i64) -> Result<Verified, Rejection> {
        let lines = self.headers.iter();
        let headers =
            Headers(lines.map(|(name, value)| (name.clone(), value.clone().into())).collect());
        let delivery = Delivery { url: &self.url, headers: &headers, body: &self.body };
        let verifier = Verifier::new(self.scheme.clone(), &self.secrets, TOLERANCE).unwrap();
        verifier.verify(delivery, Timestamp::from_micros(seconds * 1_000_000))
    }

    pub(super) fn verified(&self) -> Result<Verified, Rejection> {
        self.verified_at(self.seconds)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

fn standard() -> Example {
    let headers = [
        ("webhook-id", "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
        ("webhook-timestamp", "1649367553"),
        ("webhook-signature", "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="),
    ];
    let body = r#"{"email":"test@example.com","username":"test_user"}"#;
    let secret = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
    Example::new(Scheme::StandardWebhooks, secret, &headers, body).at(1_649_367_553)
}

fn svix(signature: &str, secret: &str) -> Example {
    let headers = [
        ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("svix-timestamp", "1614265330"),
        ("svix-signature", signature),
    ];
    Example::new(Scheme::Svix, secret, &headers, SVIX_BODY).at(1_614_265_330)
}

fn svix_shared() -> Example {
    svix("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=", SVIX_SECRET)
}

fn svix_public() -> Example {
    svix(
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
        SVIX_PUBLIC,
    )
}

fn stripe() -> Example {
    let header = "t=1492774577,v1=88a022085c6bdb887b02cb26ff76dd681234d9675c0f22844059f55552a8883a";
    let body = r#"{"id":"evt_test_webhook","object":"event"}"#;
    let headers = [("stripe-signature", header)];
    Example::new(Scheme::Stripe, "whsec_test_secret", &headers, body).at(1_492_774_577)
}

fn github() -> Example {
    let header = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let headers = [("x-hub-signature-256", header)];
    Example::new(Scheme::Github, "It's a Secret to Everybody", &headers, "Hello, World!")
}

fn slack() -> Example {
    let signature = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";
    let headers = [("x-slack-request-timestamp", "1531420618"), ("x-slack-signature", signature)];
    let secret = "8f742231b10e8888abcd99yyyzzz85a5";
    Example::new(Scheme::Slack, secret, &headers, SLACK_BODY).at(1_531_420_618)
}

fn shopify() -> Example {
    let headers = [("x-shopify-hmac-sha256", "plW8VGqq0nDMIEhDqaNNW99asdUCy7EIqLZVcQwtAZ0=")];
    Example::new(Scheme::Shopify, "shop-secret", &headers, r#"{"id":1}"#)
}

fn twilio(signature: &str, body: &str) -> Example {
    let headers = [FORM, ("x-twilio-signature", signature)];
    Example::new(Scheme::Twilio, "12345", &headers, body).to(TWILIO_URL)
}

fn twilio_json() -> Example {
    let digest = "0a1ff7634d9ab3b95db5c9a2dfe9416e41502b283a80c7cf19632632f96e6620";
    let headers = [
        ("content-type", "application/json"),
        ("x-twilio-signature", "a9nBmqA0ju/hNViExpshrM61xv4="),
    ];
    let body = r#"{"property": "value", "boolean": true}"#;
    let url = format!("{TWILIO_URL}&bodySHA256={digest}");
    Example::new(Scheme::Twilio, "12345", &headers, body).to(&url)
}

fn generic() -> Example {
    // RFC 4231, test case 2, with its data in three places.
    let rule = HmacRule {
        header: "x-signature".to_owned(),
        prefix: "hmac ".to_owned(),
        algorithm: Algorithm::Sha256,
        encoding: Encoding::Hex,
        secret: None,
        timestamp: None,
        signed: Template::read("what {header:x-do} for {body}?").unwrap(),
    };
    let signature = "hmac 5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    let headers = [("x-do", "do ya want"), ("x-signature", signature)];
    Example::new(Scheme::Hmac(Box::new(rule)), "Jefe", &headers, "nothing")
}

pub(super) fn all() -> Vec<Example> {
    vec![
        standard(),
        svix_shared(),
        svix_public(),
        stripe(),
        github(),
        slack(),
        shopify(),
        twilio("RSOYDt4T1cUTdK1PDd93/VVr8B8=", TWILIO_FORM),
        twilio_json(),
        generic(),
    ]
}

#[test]
fn every_providers_own_example_is_verified() {
    for example in all() {
        let verified = example.verified();
        assert_eq!(verified.map(|it| it.secret), Ok(Some(0)), "{example:?}");
    }
    let octokit = github().with(
        "x-hub-signature-256",
        "sha256=4864d2759938a15468b5df9ade20bf161da9b4f737ea61794142f3484236bda3",
    );
    let octokit = Example {
        secrets: vec!["mysecret".to_owned()],
        body: br#"{"foo":"bar"}"#.into(),
        ..octokit
    };
    assert!(octokit.verified().is_ok());
    assert!(
        svix_shared().with("webhook-id", "other").verified().is_ok(),
        "its own names come first"
    );
}

#[test]
fn a_url_with_its_port_and_repeated_fields_are_signed_as_twilio_does() {
    let with_port = twilio("kvajT1Ptam85bY51eRf/AJRuM3w=", TWILIO_FORM);
    assert!(with_port.verified().is_ok(), "signed with the port that we were not shown");
    let shown = "https://mycompany.com:443/myapp.php?foo=1&bar=2";
    assert!(with_port.to(shown).verified().is_ok());
    let without = twilio("RSOYDt4T1cUTdK1PDd93/VVr8B8=", TWILIO_FORM).to(shown);
    assert!(without.verified().is_ok(), "signed without the port that we were shown");
    let repeated = "Sid=CA123&SidAccount=AC123&Digits=5678&Digits=1234&Digits=1234";
    assert!(twilio("IK+Dwps556ElfBT0I3Rgjkr1wJU=", repeated).verified().is_ok());
    let no_form = twilio("RSOYDt4T1cUTdK1PDd93/VVr8B8=", TWILIO_FORM)
        .with("content-type", "application/json");
    assert!(matches!(no_form.verified(), Err(Rejection::BodyUnsigned(_))));
    let other = Example { body: b"{}".into(), ..twilio_json() };
    assert_eq!(other.verified(), Err(Rejection::BodyDiffers));
}

#[test]
fn what_was_signed_too_long_ago_or_ahead_of_the_clock_is_refused() {
    for example in [standard(), svix_public(), stripe(), slack()] {
        let at = example.seconds;
        assert!(example.verified_at(at + 300).is_ok() && example.verified_at(at - 300).is_ok());
        let late = example.verified_at(at + 301);
        assert!(matches!(late, Err(Rejection::TooOld { .. })), "{late:?}");
        let early = example.verified_at(at - 301);
        assert!(matches!(early, Err(Rejection::TooNew { .. })), "{early:?}");
    }
    assert!(github().verified_at(4_000_000_000).is_ok(), "it says no time");
}

#[test]
fn a_timestamp_is_signed_as_it_was_written() {
    for written in
        ["01649367553", "+1649367553", "1649367553.0", " 1649367553", "-1", "", "9999999999999999"]
    {
        let verified = standard().with("webhook-timestamp", written).verified();
        // A space around a field's value is none of it.
        assert_eq!(verified.is_ok(), written.trim() == "1649367553", "{written:?}");
    }
}

#[test]
fn any_of_several_signatures_may_fit_any_of_several_secrets() {
    let good = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    let other = format!("whsec_{}", STANDARD.encode([7; 32]));
    let many = format!("v1a,AAAA v2,{} v1,AAAA {good}", STANDARD.encode([1; 32]));
    let mut example = standard().with("webhook-signature", &many);
    example.secrets.insert(0, other);
    example.secrets.insert(0, SVIX_PUBLIC.to_owned());
    assert_eq!(example.verified().unwrap().secret, Some(2));
    let flood = vec![good; SIGNATURES_MAX + 1].join(" ");
    let flood = standard().with("webhook-signature", &flood).verified();
    assert_eq!(flood, Err(Rejection::TooManySignatures));
    let rolled = format!("{},v1={},v0=1", stripe().headers[0].1, "00".repeat(32));
    assert!(stripe().with("stripe-signature", &rolled).verified().is_ok());
}

#[test]
fn an_empty_short_or_wrong_signature_never_fits() {
    let good = "tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";
    for signature in
        ["", "v1,", "v1", "v1, ", good, "v2,AAAA", &format!("v1a,{good}"), "v1,tZ1I4/hD"]
    {
        let verified = standard().with("webhook-signature", signature).verified();
        assert!(verified.is_err(), "{signature:?}");
    }
    for signature in ["sha256=", "sha1=00", "757107ea0eb2509f", "sha256=757107ea0eb2509f"] {
        assert!(github().with("x-hub-signature-256", signature).verified().is_err(), "{signature}");
    }
    let test_mode = stripe().headers[0].1.replace("v1=", "v0=");
    assert!(stripe().with("stripe-signature", &test_mode).verified().is_err(), "only v1 counts");
    let mut doubled = standard();
    doubled.headers.push(("webhook-id".to_owned(), "other".to_owned()));
    assert_eq!(doubled.verified(), Err(Rejection::HeaderDoubled("webhook-id".to_owned())));
}

#[test]
fn a_secret_that_cannot_be_one_is_refused_and_never_shown() {
    let refused = |scheme: Scheme, secret: &str| {
        Verifier::new(scheme, &[secret], TOLERANCE).map(|_| ()).unwrap_err().1
    };
    assert_eq!(refused(Scheme::Github, ""), NotASecret::Empty);
    for secret in ["whsec_", "whsec_!", "whsec_AAAA", "whpk_AAAA", "whsk_AAAA"] {
        assert!(matches!(refused(Scheme::Svix, secret), NotASecret::Form(_)), "{secret}");
    }
    let none: [&str; 0] = [];
    let none = Verifier::new(Scheme::Stripe, &none, TOLERANCE).map(|_| ());
    assert_eq!(none.unwrap_err().1, NotASecret::None);
    let canary = Verifier::new(Scheme::Github, &["canary"], TOLERANCE).unwrap();
    assert!(!format!("{canary:?}").contains("canary"));
}

#[test]
fn only_what_is_signed_counts_as_signed() {
    let header = |name: &str| Place::Header(name.to_owned());
    assert!(Scheme::StandardWebhooks.covers(&header("webhook-id")));
    assert!(!Scheme::StandardWebhooks.covers(&header("x-id")));
    assert!(!Scheme::Github.covers(&header("x-github-delivery")));
    assert!(Scheme::Stripe.covers(&Place::Json("/id".to_owned())));
    assert!(!Scheme::None.covers(&Place::Json("/id".to_owned())));
    assert!(!Scheme::Twilio.covers(&Place::Form("MessageSid".to_owned())));
    assert!(generic().scheme.covers(&header("x-do")) && !generic().scheme.covers(&header("x-id")));
}

#[test]
fn a_template_signs_the_body_or_is_none() {
    assert_eq!(Template::read("{timestamp}"), Err(NotATemplate::NoBody));
    assert_eq!(Template::read("{body"), Err(NotATemplate::Open));
    assert_eq!(Template::read("{bdy}{body}"), Err(NotATemplate::Unknown("bdy".to_owned())));
    assert!(Template::read("v0:{timestamp}:{body}").unwrap().has_timestamp());
}

#[test]
fn an_id_is_text_or_a_number() {
    let headers = Headers(vec![("x-id".to_owned(), "7".into())]);
    let of = |body: &'static str| {
        Document::new(Delivery { url: "", headers: &headers, body: body.as_bytes() })
    };
    let json = |pointer: &str| Place::Json(pointer.to_owned());
    assert_eq!(of(r#"{"a":{"b":5}}"#).at(&json("/a/b")).as_deref(), Some("5"));
    assert_eq!(of(r#"{"a":""}"#).at(&json("/a")), None);
    assert_eq!(of("no json").at(&json("/a")), None);
    assert_eq!(of("").at(&Place::Header("x-id".to_owned())).as_deref(), Some("7"));
    assert_eq!(of("a=1&b=x+y").at(&Place::Form("b".to_owned())).as_deref(), Some("x y"));
}

#[test]
fn what_is_signed_here_is_verified_here() {
    let secret = [9; 32];
    let signature = sign(&secret, "msg_1", 1_700_000_000, b"\xff\x00 any bytes");
    let headers = [
        ("webhook-id", "msg_1"),
        ("webhook-timestamp", "1700000000"),
        ("webhook-signature", signature.as_str()),
    ];
    let secret = format!("whsec_{}", STANDARD.encode(secret));
    let example = Example::new(Scheme::StandardWebhooks, &secret, &headers, "");
    let example = Example { body: b"\xff\x00 any bytes".into(), ..example };
    assert!(example.at(1_700_000_000).verified().is_ok());
    assert_eq!(
        sign(
            &STANDARD.decode(SVIX_SECRET).unwrap(),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            SVIX_BODY.as_bytes()
        ),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
}

proptest! {
    /// Of all that is signed, and of the signature, no bit may differ.
    #[test]
    fn a_flipped_bit_is_refused(which in 0_usize..10, part in 0_usize..4, place: prop::sample::Index, bit in 0_u8..8) {
        let mut example = all().swap_remove(which);
        let is_flipped = if part == 0 {
            let at = place.index(example.body.len());
            example.body[at] ^= 1 << bit;
            true
        } else {
            let signed: Vec<usize> = example
                .headers
                .iter()
                .enumerate()
                .filter(|(_, (name, _))| name != "content-type")
                .map(|(at, _)| at)
                .collect();
            let line = signed[part % signed.len()];
            let (_, value) = &mut example.headers[line];
            let mut bytes = value.clone().into_bytes();
            let at = place.index(bytes.len());
            bytes[at] ^= 1 << bit;
            match String::from_utf8(bytes) {
                // The case of a hexadecimal digit and the space around a value say nothing.
                Ok(flipped) if !flipped.trim().eq_ignore_ascii_case(value) => {
                    *value = flipped;
                    true
                }
                _ => false,
            }
        };
        if is_flipped {
            // What base64 leaves over of its last letter, and what a form is decoded from, can be
            // written in more than one way: then what was signed is still the same.
            let verified = example.verified();
            let original = all().swap_remove(which).verified();
            prop_assert!(verified.is_err() || verified == original, "{example:?}");
            let is_form = matches!(example.scheme, Scheme::Twilio);
            prop_assert!(verified.is_err() || (is_form && part == 0), "{example:?}");
        }
    }

    /// Whatever comes, it is refused and nothing breaks.
    #[test]
    fn anything_is_read_without_harm(which in 0_usize..10, value in ".{0,80}", body: Vec<u8>, url in ".{0,60}") {
        let mut example = all().swap_remove(which);
        for (_, line) in &mut example.headers {
            line.clone_from(&value);
        }
        example.body = body;
        example.url = url;
        prop_assert!(example.verified().is_err());
    }
}
