//! `verify` finds what is broken by the case that is made for it, and nothing where nothing is.

#![expect(clippy::unwrap_used, reason = "a failed expectation is the point of a test")]

use std::collections::BTreeSet;
use std::thread;

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::verify_world::{Api, Contract, Defect};
use crate::world::{Ended, World};

const COUNT: &str = "GET /orders?ref={marker}";

/// Where the APIs of a test run.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn verify(url: &str, more: &[&str]) -> Ended {
    World::new().run(&[&["verify", url], more].concat())
}

/// A run's document, whatever its verdict.
fn document(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// What is broken at `level`, as case/check.
fn broken(document: &Value, level: &str) -> BTreeSet<String> {
    let mut broken = BTreeSet::new();
    for case in document["cases"].as_array().unwrap() {
        for check in case["checks"].as_array().unwrap() {
            if check["result"] == "broken" && check["level"] == level {
                let [case, check] =
                    [&case["case"], &check["check"]].map(|name| name.as_str().unwrap());
                broken.insert(format!("{case}/{check}"));
            }
        }
    }
    broken
}

/// A defect; what finds it; and the cases in which it shows too, as it happens.
const FOUND: &[(Defect, &[&str], &[&str])] = &[
    (
        Defect::CheckThenAct,
        &["concurrent/one-effect", "payload-race/one-effect"],
        &["late-answer", "cut-and-retried", "hung-up"],
    ),
    (
        Defect::NoFingerprint,
        &["other-payload/payload-refused", "other-path/no-answer-of-another"],
        &["other-query", "other-method"],
    ),
    (Defect::NoQuery, &["other-query/no-answer-of-another"], &[]),
    (
        Defect::BodyInKey,
        &[
            "other-payload/payload-refused",
            "other-payload/one-effect",
            "payload-race/one-effect",
            "json-form/one-effect",
        ],
        &["client-error"],
    ),
    (
        Defect::ShortLock,
        &["concurrent/one-effect", "late-answer/one-effect"],
        &["payload-race", "cut-and-retried", "hung-up"],
    ),
    (Defect::OnlySuccessKept, &["client-error/error-kept"], &[]),
    (Defect::AllCallersOne, &["other-caller/callers-apart"], &[]),
    (Defect::CookieReplayed, &["headers/no-credentials"], &[]),
    (Defect::DateReplayed, &["headers/fresh-date"], &[]),
    (
        Defect::ReplayCut,
        &["sequential/whole-answer", "sequential/same-answer", "after-pause/same-answer"],
        &["other-payload", "key-quotes", "json-form", "concurrent", "late-answer"],
    ),
    (Defect::LocationLost, &["sequential/kept-headers"], &[]),
    (
        Defect::AnswerDiffers,
        &["sequential/same-answer", "after-pause/same-answer"],
        &["other-payload", "key-quotes", "json-form", "concurrent", "late-answer"],
    ),
    (
        Defect::BadKeyPassedOver,
        &["key-empty/bad-key-heeded", "key-twice/bad-key-heeded", "key-too-long/bad-key-refused"],
        &["key-open-quote", "key-not-ascii"],
    ),
    (Defect::KeyFolded, &["key-case/key-whole"], &[]),
    (Defect::KeyCut, &["key-last-byte/key-whole"], &[]),
    (Defect::DiesWithCaller, &["hung-up/one-effect"], &["cut-and-retried"]),
    (Defect::StuckWithoutCaller, &["hung-up/key-not-stuck"], &["cut-and-retried"]),
    (Defect::ForgetsSoon, &["after-pause/one-effect"], &["headers", "hung-up"]),
    (Defect::AnswersEarly, &["concurrent/losers-told"], &["late-answer", "cut-and-retried"]),
    (
        Defect::KeyIgnored,
        &["sequential/one-effect", "concurrent/one-effect", "after-pause/one-effect"],
        &[
            "late-answer",
            "hung-up",
            "cut-and-retried",
            "other-payload",
            "payload-race",
            "other-path",
            "other-query",
            "other-method",
            "json-form",
            "key-quotes",
            "key-empty",
            "key-open-quote",
            "key-twice",
            "key-not-ascii",
            "key-too-long",
            "client-error",
        ],
    ),
];

#[test]
fn each_defect_is_found_by_the_case_that_is_made_for_it_and_by_no_wrong_one() {
    let runtime = runtime();
    let runs = FOUND.iter().map(|(defect, found, also)| {
        let api = runtime.block_on(Api::start(Contract::Onceward, *defect));
        let run =
            move || verify(&api.url(), &["--count", COUNT, "--profile", "onceward", "--json"]);
        (defect, found, also, thread::spawn(run))
    });
    let mut wrong = Vec::new();
    for (defect, found, also, run) in runs.collect::<Vec<_>>() {
        let ended = run.join().unwrap();
        let broken = broken(&document(&ended), "MUST");
        let cases: BTreeSet<&str> = found
            .iter()
            .filter_map(|found| found.split('/').next())
            .chain(also.iter().copied())
            .collect();
        let missed: Vec<_> = found.iter().filter(|found| !broken.contains(**found)).collect();
        let stray: Vec<_> = broken
            .iter()
            .filter(|broken| !cases.contains(broken.split('/').next().unwrap_or_default()))
            .collect();
        if !missed.is_empty() || !stray.is_empty() || ended.code != Some(5) {
            wrong.push(format!(
                "{defect:?}: exit {:?}, missed {missed:?}, stray {stray:?}",
                ended.code
            ));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_api_is_called_by_the_first_contract_that_it_keeps() {
    let runtime = runtime();
    let runs = [
        (Contract::Onceward, "onceward"),
        (Contract::Ietf, "ietf"),
        (Contract::Stripe, "stripe"),
        (Contract::DedupeOnly, "dedupe-only"),
    ]
    .map(|(contract, name)| {
        let api = runtime.block_on(Api::start(contract, Defect::None));
        let counted = api.clone();
        let by_count = move || verify(&counted.url(), &["--count", COUNT, "--json"]);
        // Without a count, what was made is known by its id.
        let by_id = move || verify(&api.url(), &["--json"]);
        (name, [thread::spawn(by_count), thread::spawn(by_id)])
    });
    for (name, runs) in runs {
        for run in runs {
            let ended = run.join().unwrap();
            let document = document(&ended);
            assert_eq!(broken(&document, "MUST"), BTreeSet::new(), "{name}");
            assert_eq!((document["profile"].as_str(), ended.code), (Some(name), Some(0)));
        }
    }
}

#[test]
fn an_api_without_keys_keeps_no_contract() {
    let runtime = runtime();
    let api = runtime.block_on(Api::start(Contract::Plain, Defect::None));
    let ended = verify(&api.url(), &["--json"]);
    let document = document(&ended);
    assert_eq!(document["fits"], Value::Array(Vec::new()));
    assert_eq!(document["profile_chosen"], "nearest");
    assert!(broken(&document, "MUST").contains("sequential/one-effect"));
    assert!(ended.failed(5).contains("error: "));
}

#[test]
fn our_own_demo_keeps_every_must_of_its_contract() {
    let world = World::new();
    let gateway = world.serve();
    let demo = [
        "verify",
        &format!("http://{}/to/demo/orders", gateway.address),
        "--count",
        "GET /to/demo/effects",
        "--failing",
        "/to/demo/orders?script=422,201",
        "--failing",
        "/to/demo/orders?script=503,drop,201",
        "--json",
    ];
    let demo = document(&gateway.run(&demo));
    assert_eq!(broken(&demo, "MUST"), BTreeSet::new(), "{demo:#}");
    assert_eq!(
        (&demo["profile"], &demo["verdict"]),
        (&Value::from("onceward"), &Value::from("pass"))
    );
}

#[test]
fn our_own_gateway_makes_an_api_without_keys_keep_every_must() {
    let runtime = runtime();
    let plain = runtime.block_on(Api::start(Contract::Plain, Defect::None));
    let world = World::new();
    world.write(
        "onceward.toml",
        &format!(
            "[routes.crud]\nupstream = \"http://{}\"\neffects = \"non-idempotent\"\nwindow = \"2s\"\n",
            plain.address
        ),
    );
    let gateway = world.serve();
    // From the first access key on, each call needs one.
    let first = gateway.run(&["access", "create", "first", "--json"]).json();
    let other = gateway.run(&["access", "create", "other", "--json"]).json();
    let [first, other] = [first, other]
        .map(|made| format!("Onceward-Authorization: Bearer {}", made["key"].as_str().unwrap()));
    let crud = |more: &[&str]| {
        let url = format!("http://{}/to/crud/orders", gateway.address);
        let count = format!("GET http://{}/orders?ref={{marker}}", plain.address);
        let callers = ["--header", &first, "--other-header", &other];
        let how = ["verify", &url, "--count", &count, "--profile", "onceward", "--json"];
        document(&gateway.run(&[&how[..], &callers, more].concat()))
    };
    let (held, accepted) = thread::scope(|scope| {
        let accepted = scope.spawn(|| crud(&["--header", "Prefer: respond-async"]));
        (crud(&["--window", "2s"]), accepted.join().unwrap())
    });
    for document in [&held, &accepted] {
        for level in ["MUST", "SHOULD"] {
            assert_eq!(broken(document, level), BTreeSet::new(), "{document:#}");
        }
    }
    // The pause is as long as this window.
    assert_eq!(held["checks"]["must"]["unknown"], 2, "{held:#}");
}

#[test]
fn where_two_effects_are_not_seen_nothing_is_judged() {
    let runtime = runtime();
    let api = runtime.block_on(Api::start(Contract::Onceward, Defect::None));
    let ended = verify(&api.url(), &["--count", "GET /orders?ref=nothing", "--json"]);
    assert_eq!(document(&ended)["verdict"], "blind");
    assert!(ended.failed(1).contains("the oracle is blind"));
    let refused = verify(&api.url(), &["--body", "{}"]).failed(1);
    assert!(refused.contains("brought 400") && refused.contains("help: "), "{refused}");
    let unjudged = verify(&api.url(), &["--only", "expiry", "--json"]);
    assert_eq!(document(&unjudged)["verdict"], "unjudged");
    assert!(unjudged.failed(1).contains("no MUST could be judged"));
    let unwanted = runtime.block_on(Api::start(Contract::Onceward, Defect::KeyUnwanted));
    let unwanted = verify(&unwanted.url(), &[]).failed(1);
    assert!(unwanted.contains("with one in idempotency-key it brought 400"), "{unwanted}");
    let nobody = verify("http://127.0.0.1:1/orders", &[]).failed(1);
    assert!(nobody.contains("cannot connect"), "{nobody}");
}

#[test]
fn a_plan_shows_every_case_and_sends_nothing() {
    let runtime = runtime();
    let api = runtime.block_on(Api::start(Contract::Onceward, Defect::None));
    let plan = verify(&api.url(), &["--plan", "--count", COUNT, "--json"]).json();
    assert!(plan["calls"].as_u64().unwrap() > 50, "{plan}");
    assert!(plan["cases"].as_array().unwrap().len() > 20, "{plan}");
    let shown = verify(&api.url(), &["--plan"]).ok();
    assert!(shown.contains("other-payload\tA with key 1, B with key 1"), "{shown}");
    assert_eq!(api.calls(), 0);
}

#[test]
fn an_api_elsewhere_needs_a_word_and_what_cannot_be_read_exits_2() {
    let elsewhere = verify("https://api.example.com/orders", &[]).failed(2);
    assert!(elsewhere.contains("--i-own-this") && elsewhere.contains("--plan"), "{elsewhere}");
    verify("https://api.example.com/orders", &["--plan"]).ok();
    // The count's place is asked too.
    let counted = ["--count", "GET https://api.example.com/orders"];
    let counted = verify("http://127.0.0.1:1/orders", &counted).failed(2);
    assert!(counted.contains("api.example.com"), "{counted}");
    let allowed = verify("http://127.0.0.1:1/orders", &["--i-own-this"]).failed(1);
    assert!(allowed.contains("cannot connect"), "{allowed}");
    for wrong in [
        &["not a url"][..],
        &["ftp://localhost/x"],
        &["http://u:p@localhost/x"],
        &["http://localhost/x", "--pause", "1s"],
        &["http://localhost/x", "--profile", "mine"],
        &["http://localhost/x", "--only", "nothing"],
        &["http://localhost/x", "--count", "GET"],
        &["http://localhost/x", "--failing", "https://api.example.com/x"],
        &["http://localhost/x", "--header", "no colon"],
    ] {
        verify(wrong[0], &[&["--plan"], &wrong[1..]].concat()).failed(2);
    }
}

#[test]
fn a_failure_comes_with_shell_lines_and_as_junit() {
    let runtime = runtime();
    let api = runtime.block_on(Api::start(Contract::Onceward, Defect::NoFingerprint));
    let world = World::new();
    let ended = world.run(&[
        "verify",
        &api.url(),
        "--count",
        COUNT,
        "--profile",
        "onceward",
        "--only",
        "other-payload",
        "--header",
        "Authorization: Bearer s3cret",
        "--junit",
        "found.xml",
    ]);
    assert!(ended.out.contains("broken\tMUST\tother-payload\tpayload-refused\t201"), "{ended:?}");
    assert!(ended.err.contains("other-payload by hand:\n  curl -isS -X POST"), "{ended:?}");
    assert!(ended.err.contains("\"authorization: $AUTHORIZATION\""), "{ended:?}");
    let junit = std::fs::read_to_string(world.path("found.xml")).unwrap();
    assert!(junit.contains("<failure type=\"MUST\" message=\"201"), "{junit}");
    for text in [&ended.out, &ended.err, &junit] {
        assert!(!text.contains("s3cret"), "{text}");
    }
    ended.failed(5);
}
