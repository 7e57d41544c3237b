//! stripe-python and stripe-node, unchanged but for where they send to: their own keys are honoured,
//! their retries are answered from memory, errors are of the types that they were, and every refusal
//! of ours is thrown.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

use std::net::{SocketAddr, TcpListener};

use serde_json::{Value, json};

use crate::sdks_world::{LOST, Language, Provider, Script, losing_the_first_answer};
use crate::world::{Gateway, World};

const PYTHON: &str = include_str!("../sdks/stripe_calls.py");
const NODE: &str = include_str!("../sdks/stripe_calls.mjs");

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// An SDK, and a gateway before the provider: stripe-python takes a URL with a path, stripe-node a
/// host, which is the route's own.
struct Sdk {
    script: Script,
    gateway: Gateway,
    provider: Provider,
    language: Language,
    listens: SocketAddr,
    _world: World,
}

impl Sdk {
    fn start(language: Language, lines: &str) -> Option<Self> {
        let script = Script::start(language, PYTHON, NODE)?;
        let (world, provider, listens) = (World::new(), Provider::start(), free());
        let upstream = provider.address;
        let listen = match language {
            Language::Python => String::new(),
            Language::Node => format!("listen = \"{listens}\"\n"),
        };
        let text = format!(
            "[routes.stripe]\nupstream = \"http://{upstream}\"\nprofile = \"stripe\"\n\
             breaker = false\n{listen}{lines}\n"
        );
        world.write("onceward.toml", &text);
        let gateway = world.serve();
        Some(Self { script, gateway, provider, language, listens, _world: world })
    }

    fn base(&self) -> String {
        match self.language {
            Language::Python => format!("http://{}/to/stripe", self.gateway.address),
            Language::Node => format!("http://{}", self.listens),
        }
    }

    fn pay(&mut self, amount: u32, key: Option<&str>, retries: u32) -> Value {
        let base = self.base();
        self.pay_at(&base, amount, key, retries)
    }

    fn pay_at(&mut self, base: &str, amount: u32, key: Option<&str>, retries: u32) -> Value {
        let call = json!({"base": base, "amount": amount, "key": key, "retries": retries});
        self.script.ask(&call)
    }
}

/// The class and status of what was thrown; stripe-node's names are longer.
#[track_caller]
fn thrown(said: &Value) -> (&str, u64) {
    let class = said["error"].as_str().unwrap_or_else(|| panic!("not thrown: {said}"));
    (class.trim_start_matches("Stripe"), said["status"].as_u64().unwrap())
}

fn an_automatic_key_is_honoured(language: Language) {
    let Some(mut sdk) = Sdk::start(language, "") else { return };
    let paid = sdk.pay(100, None, 0);
    assert_eq!(paid["amount"], 100, "{paid}");
    let requests = sdk.provider.requests();
    assert_eq!(requests.len(), 1);
    let key = &requests[0].0;
    let found = sdk.gateway.run(&["ls", "--key", key, "--json"]).json();
    assert_eq!(found[0]["state"], "done", "the SDK's key is the operation's and the provider's");
}

fn a_retry_of_the_sdk_is_answered_from_memory(language: Language) {
    let Some(mut sdk) = Sdk::start(language, "") else { return };
    let base = sdk.base();
    let address = base.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    let lossy = losing_the_first_answer(address.parse().unwrap());
    let base = base.replace(&address, &lossy.to_string());
    let paid = sdk.pay_at(&base, 100, None, 2);
    assert_eq!(paid["id"], "pi_1", "{paid}");
    assert_eq!(sdk.provider.requests().len(), 1, "the second answer came from memory");
}

fn a_payment_whose_answer_was_lost_is_asked_for_again_with_its_key(language: Language) {
    let Some(mut sdk) = Sdk::start(language, "") else { return };
    let paid = sdk.pay(LOST, None, 0);
    assert_eq!(paid["id"], "pi_1", "{paid}");
    let requests = sdk.provider.requests();
    assert_eq!(requests.iter().filter(|(_, executed)| *executed).count(), 1, "{requests:?}");
    assert!(requests.len() > 1 && requests.iter().all(|(key, _)| *key == requests[0].0));
}

fn errors_are_of_the_types_that_they_were(language: Language) {
    let Some(mut sdk) = Sdk::start(language, "") else { return };
    let bare = format!("http://{}", sdk.provider.address);
    for amount in [400, 401, 402, 403] {
        let before = sdk.pay_at(&bare, amount, None, 0);
        let through = sdk.pay(amount, None, 0);
        assert_eq!(through, before);
        assert_eq!(through["status"], amount, "{through}");
    }
}

fn every_refusal_is_thrown(language: Language) {
    let lines = "window = \"1ms\"\nheld = { attempts_max = 1 }\nbody_bytes_max = \"200B\"";
    let Some(mut sdk) = Sdk::start(language, lines) else { return };
    assert_eq!(sdk.pay(100, Some("used"), 0)["id"], "pi_1");
    assert_eq!(
        thrown(&sdk.pay(101, Some("used"), 2)),
        ("IdempotencyError", 400),
        "another request"
    );
    let expired = sdk.pay(100, Some("used"), 2);
    // Only for 400 and 404 the SDKs look at the type of an error before its status.
    assert_eq!(thrown(&expired).1, 410, "its window is over");
    sdk.gateway.run(&["pause", "stripe", "--reason", "to see what is thrown"]).ok();
    assert_eq!(thrown(&sdk.pay(100, Some("paused"), 0)), ("APIError", 503));
    sdk.gateway.run(&["resume", "stripe", "--reason", "seen"]).ok();
    assert_eq!(thrown(&sdk.pay(LOST, Some("lost"), 0)), ("APIError", 504));
    let executed = sdk.provider.requests().into_iter().filter(|(_, executed)| *executed).count();
    assert_eq!(executed, 2, "a refused request has sent nothing");
}

fn a_payment_under_way_is_a_conflict_and_no_payment(language: Language) {
    let lines = "wait = \"100ms\"\nanswer_max = \"200ms\"";
    let Some(mut sdk) = Sdk::start(language, lines) else { return };
    sdk.provider.be_slow(true);
    assert_eq!(thrown(&sdk.pay(100, Some("slow"), 0)), ("APIError", 504));
    assert_eq!(thrown(&sdk.pay(100, Some("slow"), 0)).1, 409);
    sdk.provider.be_slow(false);
    let third = sdk.pay(100, Some("slow"), 3);
    assert_eq!(third["id"], "pi_1", "its own retries wait for the end: {third}");
    assert_eq!(sdk.provider.requests().len(), 1);
}

macro_rules! with_both {
    ($($name:ident),+ $(,)?) => {
        mod with_stripe_python { use super::*; $(#[test] fn $name() { super::$name(Language::Python); })+ }
        mod with_stripe_node { use super::*; $(#[test] fn $name() { super::$name(Language::Node); })+ }
    };
}

with_both!(
    an_automatic_key_is_honoured,
    a_retry_of_the_sdk_is_answered_from_memory,
    a_payment_whose_answer_was_lost_is_asked_for_again_with_its_key,
    errors_are_of_the_types_that_they_were,
    every_refusal_is_thrown,
    a_payment_under_way_is_a_conflict_and_no_payment,
);
