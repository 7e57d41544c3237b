//! A call from the page: what the form says is sent once, and stands beside it as a program says it.

use crate::browser_world::{Browser, Server};
use crate::world::until;

const FORM: [(&str, &str); 2] =
    [("Accept", "text/html"), ("Content-Type", "application/x-www-form-urlencoded")];

/// Writes over what a field has.
fn write(browser: &Browser, name: &str, text: &str) {
    browser.evaluate(&format!("document.querySelector('#send [name={name}]').value = ''"));
    browser.fill(&format!("#send [name={name}]"), text);
}

#[test]
fn a_call_is_sent_from_the_page_and_its_form_sent_twice_is_one_operation() {
    let server = Server::start();
    let browser = Browser::start();
    browser.open(&server.url("/upstreams"));
    browser.click("#upstream-demo a[href='/send?route=demo']");
    until("the form is there", || browser.url().ends_with("/send?route=demo").then_some(()));
    assert_eq!(browser.evaluate("document.querySelector('[name=to]').value"), "demo");
    let key = browser.evaluate("document.querySelector('[name=key]').value");
    let key = key.as_str().unwrap_or_default().to_owned();
    write(&browser, "path", "/orders?ref=1");
    write(&browser, "body", "{\"qty\": 1}");
    browser.click("#send button:not([name])");
    until("the operation is there", || browser.url().contains("/operations/op_").then_some(()));
    assert_eq!(browser.text(".place .chip"), "done");
    assert!(browser.text("#request").contains("\"qty\": 1"));
    let story = browser.url();
    assert_eq!(browser.console(), Vec::<String>::new());

    let again = format!(
        "to=demo&method=POST&path=%2Forders%3Fref%3D1&content_type=application%2Fjson&body=%7B%22qty%22%3A+1%7D&key={key}&mode=held"
    );
    let answer = server.ask("POST", "/send", &FORM, &again);
    assert_eq!(answer.status, 303, "{}", answer.text());
    assert!(story.ends_with(answer.header("location").unwrap_or("nowhere")), "{story}");
    assert_eq!(server.ask("GET", "/to/demo/effects", &[], "").json()["count"], 1);
    assert_eq!(server.operations().len(), 1, "sent twice it is one operation");

    let other = again.replace("qty", "count");
    let refused = server.ask("POST", "/send", &FORM, &other);
    assert_eq!(refused.status, 409, "another request under its key is none of it");
    let nowhere = again.replace("to=demo", "to=nowhere");
    assert_eq!(server.ask("POST", "/send", &FORM, &nowhere).status, 404);
    let foreign = [FORM[0], FORM[1], ("Origin", "http://evil.example")];
    assert_eq!(server.ask("POST", "/send", &foreign, &again).status, 403);
}

#[test]
fn a_form_for_another_tenant_says_so_and_sends_for_it() {
    let server = Server::start();
    let html = [FORM[0]];
    let form = server.ask("GET", "/send?route=demo&tenant=acme", &html, "").text();
    assert!(form.contains("action=\"/send?tenant=acme\""), "{form}");
    assert!(form.contains("for the tenant <strong><bdi>acme</bdi>"), "{form}");
    let filled = "to=demo&method=POST&path=%2Forders&body=&key=k&mode=held";
    assert_eq!(server.ask("POST", "/send?tenant=acme", &FORM, filled).status, 303);
    assert_eq!(server.operations()[0]["tenant"], "acme");
    let form = server.ask("GET", "/send?route=demo", &html, "").text();
    assert!(form.contains("action=\"/send\"") && !form.contains("for the tenant"), "{form}");
}

#[test]
fn what_the_form_says_is_shown_as_code_and_that_sends_nothing() {
    let server = Server::start();
    let browser = Browser::start();
    browser.open(&server.url("/send?route=demo"));
    write(&browser, "path", "/orders");
    write(&browser, "content_type", "text/plain");
    write(&browser, "body", "it's \"<b>\"");
    browser.click("#send [value=accepted]");
    browser.click("#send [name=show]");
    until("it is shown", || {
        browser.text("#code-curl").contains("--data-raw 'it'\\''s \"<b>\"'").then_some(())
    });
    assert!(browser.text("#code-curl").contains("Prefer: respond-async"));
    for (id, said) in [
        ("typescript", "onceward.accept({"),
        ("python", "body=\"it's \\\"<b>\\\"\""),
        ("rust", ".body(\"it's \\\"<b>\\\"\")"),
    ] {
        let text = browser.evaluate(&format!("document.querySelector('#code-{id}').textContent"));
        let text = text.as_str().unwrap_or_default();
        assert!(text.contains(said) && text.contains(&server.url("")), "{id}: {text}");
    }
    let kept = browser.evaluate("document.querySelector('#send [name=body]').value");
    assert_eq!(kept, "it's \"<b>\"", "the form is as it was");
    assert_eq!(server.operations().len(), 0, "nothing was sent");
    assert_eq!(browser.console(), Vec::<String>::new());
}
