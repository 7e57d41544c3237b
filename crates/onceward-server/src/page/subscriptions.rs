//! `/subscriptions`: who is told of which events and how each receiver does, with forms to pause it, to try it
//! and to recover what it missed or what failed there.

use axum::extract::Path;
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::event::{Event, TypePattern};
use onceward::core::operation::Operation;
use onceward::core::time::Timestamp;
use onceward::store::{Query, Standing};
use onceward::{Destination, Subscription};
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::frame::{Frame, Here, Html, heading, reason};
use super::icons::Icon;
use super::words::{self, sign};
use crate::operator::events::tried;
use crate::operator::{Asked, Because, Sent, given, id_of, invalid, moment, reasoned};
use crate::problem::Problem;
use crate::view::View;

/// How many are shown whole.
const SHOWN_MAX: usize = 100;

/// Dead letters of each that are shown.
const DEAD_SHOWN: usize = 3;

/// The steps that a form takes to look for what was missed; the command line takes any number.
const STEPS_MAX: usize = 20;

/// What a search for what was missed did not come to.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Left {
    /// The subscription.
    #[serde(rename = "left")]
    of: Option<String>,
    since: Option<String>,
    cursor: Option<String>,
    /// Read by whoever looks at the ledger.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
}

pub(super) async fn show(node: View, Asked(left): Asked<Left>) -> Result<Html, Problem> {
    let frame = Frame::of(&node).await?;
    let all = node.subscriptions().await?;
    let now = crate::shape::now();
    let mut cards = Vec::new();
    for subscription in all.iter().take(SHOWN_MAX) {
        cards.push(card(&node, subscription, &dead_letters(&node, subscription).await?, now));
    }
    let content = html! {
        (heading("Subscriptions", &html! {
            "Who is told of which events. What a receiver cannot take now waits for it; what failed for good is a dead letter."
        }, "/v1/subscriptions"))
        @if cards.is_empty() {
            div.empty.card {
                p { strong { "Nobody is told of anything." } " This makes a subscription, and shows the secret of its signatures:" }
                pre tabindex="0" { code { "onceward subscriptions create https://app.example.com/hooks --type 'order.*'" } }
            }
        }
        (go_on(&left))
        @for card in &cards { (card) }
        @if all.len() > SHOWN_MAX {
            p.soft { "And " (all.len() - SHOWN_MAX) " more: " code { "onceward subscriptions ls" } }
        }
    };
    Ok(Html(frame.page(Here::Subscriptions, "Subscriptions", &content)))
}

async fn dead_letters(node: &View, subscription: &Subscription) -> Result<Vec<Operation>, Problem> {
    let query = Query {
        standing: vec![Standing::DeadLetter],
        tenant: Some(subscription.tenant.clone()),
        route: Some(subscription.route_name()),
        limit: DEAD_SHOWN,
        ..Query::default()
    };
    Ok(node.list(query).await?.operations)
}

fn card(node: &View, subscription: &Subscription, dead: &[Operation], now: Timestamp) -> Markup {
    let Subscription { name, wish, .. } = subscription;
    let route = subscription.route_name();
    let pause = node.engine.paused().get(&route).cloned();
    let standing = node.engine.standing(&route);
    let (url, target) = match &wish.to {
        Destination::Url(url) => (url.to_string(), None),
        Destination::Route { name, target } => (target.clone(), Some(name.clone())),
    };
    let title = if wish.description.is_empty() { name } else { &wish.description };
    let fact = |name: &str, value: Markup| html! { div { dt { (name) } dd { (value) } } };
    let types: Vec<&str> = wish.selection.types.iter().map(TypePattern::as_str).collect();
    html! {
        article.card id=(name) aria-label=(title) {
            header.heading {
                div {
                    h2 { bdi { (title) } }
                    code.soft { @if let Some(route) = target { (route) } (url) }
                }
                div.tools {
                    @match (&pause, wish.is_enabled, subscription.failing_since) {
                        (_, false, _) => { (sign("told", Icon::Gone, "not enabled: what comes is missed")) }
                        (Some(pause), true, _) => {
                            (sign("told", Icon::Paused, "paused")) " "
                            span.label { "by " (pause.who) " " (words::time(pause.at, now)) ": " (pause.reason) }
                        }
                        (None, true, Some(since)) => {
                            (sign("doubt", Icon::Warning, "fails")) " " span.label { "since " (words::time(since, now)) }
                        }
                        (None, true, None) => { (sign("done", Icon::Done, "takes events")) }
                    }
                    (steer(name, pause.is_some()))
                }
            }
            dl.facts {
                (fact("Types", html! { @if types.is_empty() { "all" } @else { code { (types.join(" ")) } } }))
                (fact("Filter", html! { @match &wish.selection.filter { Some(filter) => code { (filter.source()) }, None => "none" } }))
                (fact("Under way", html! { (standing.map_or(0, |standing| standing.busy)) }))
                (fact("Secrets that sign", html! { (subscription.signing.len()) }))
                (fact("Version", html! { (subscription.version) }))
            }
            p.soft.small {
                code { (name) } " · " a href={ "/operations?route=" (words::in_query(&route)) } { "Its deliveries" }
            }
            @if !dead.is_empty() {
                h3 { "Last that failed for good" }
                ul.lines {
                    @for operation in dead {
                        li {
                            (words::chip(operation)) " "
                            a href=(words::url_of(operation.id)) { bdi { (operation.label.as_deref().unwrap_or("event")) } } " "
                            span.soft { (words::last(operation)) ", " (words::time(operation.ended_at.unwrap_or(operation.created_at), now)) }
                        }
                    }
                }
            }
            div.tools { (recovery(name)) (trial(name)) }
        }
    }
}

fn steer(name: &str, is_paused: bool) -> Markup {
    let (path, word) = if is_paused { ("resume", "Resume") } else { ("pause", "Pause") };
    html! {
        details.act {
            summary.quiet { (word) }
            form method="post" action={ "/subscriptions/" (name) "/" (path) } {
                (reason("Why"))
                button { (word) " it" }
            }
        }
    }
}

fn recovery(name: &str) -> Markup {
    html! {
        details.act {
            summary.quiet { "Recover" }
            form method="post" action={ "/subscriptions/" (name) "/recover" } {
                label { "What"
                    select name="what" {
                        option value="failed" { "send again what failed" }
                        option value="missed" { "deliver what was missed" }
                    }
                }
                label { "Since" input name="since" required value="24h" maxlength="40" autocomplete="off"; }
                (reason("Why"))
                button { "Recover" }
            }
        }
    }
}

/// That not all was looked at, and the form that goes on from there.
fn go_on(left: &Left) -> Markup {
    let Left { of: Some(name), since: Some(since), cursor: Some(cursor), .. } = left else {
        return html! {};
    };
    html! {
        div.notice.warn role="status" {
            p { "There are older events that were not looked at yet: what " code { (name) } " missed of them is not delivered." }
            form method="post" action={ "/subscriptions/" (words::in_path(name)) "/recover" } {
                input type="hidden" name="what" value="missed";
                input type="hidden" name="since" value=(since);
                input type="hidden" name="cursor" value=(cursor);
                (reason("Why"))
                button { "Go on" }
            }
        }
    }
}

fn trial(name: &str) -> Markup {
    html! {
        details.act {
            summary.quiet { "Test" }
            form method="post" action={ "/subscriptions/" (name) "/test" } {
                (reason("Why"))
                button { "Send a test event" }
            }
        }
    }
}

fn back(name: &str) -> Redirect {
    Redirect::to(&format!("/subscriptions#{name}"))
}

pub(super) async fn pause(
    node: View,
    Path(name): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Result<Redirect, Problem> {
    let found = node.subscription(&name).await?;
    node.engine.pause(&found.route_name(), &person).await?;
    Ok(back(&found.name))
}

pub(super) async fn resume(
    node: View,
    Path(name): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Result<Redirect, Problem> {
    let found = node.subscription(&name).await?;
    if node.engine.paused().contains_key(&found.route_name()) {
        node.engine.resume(&found.route_name(), &person).await?;
    }
    Ok(back(&found.name))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recover {
    what: String,
    since: String,
    /// Where an earlier search ended.
    cursor: Option<String>,
    reason: String,
}

reasoned!(Recover);

pub(super) async fn recover(
    node: View,
    Path(name): Path<String>,
    Sent(person, said): Sent<Recover>,
) -> Result<Redirect, Problem> {
    let found = node.subscription(&name).await?;
    node.check_released("Nothing was done; release the ledger first.")?;
    let since = moment(&said.since)?;
    match said.what.as_str() {
        "failed" => {
            let bulk = node.engine.recover_failed(&found.name, since, &person).await?;
            Ok(Redirect::to(&format!("/bulk/{}", bulk.name())))
        }
        "missed" => {
            let mut before = given(said.cursor.as_ref()).map(id_of).transpose()?;
            for _ in 0..STEPS_MAX {
                let step = node.engine.recover_missed(&found.name, since, before, &person).await?;
                before = step.next;
                if before.is_none() {
                    return Ok(back(&found.name));
                }
            }
            let cursor = before.map(|next| next.to_string()).unwrap_or_default();
            let words =
                [("left", &found.name), ("since", &crate::shape::time(since)), ("cursor", &cursor)];
            let left = Serializer::new(String::new()).extend_pairs(words).finish();
            Ok(Redirect::to(&format!("/subscriptions?{left}")))
        }
        _ => Err(invalid("what: `failed` or `missed`")),
    }
}

pub(super) async fn test(
    node: View,
    Path(name): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Result<Redirect, Problem> {
    let found = node.subscription(&name).await?;
    let event = Event::own("onceward.test", None, None, None);
    let event = event.map_err(|why| invalid(why.to_string()))?;
    tried(&node, &found, event, person.who.clone(), &person).await.map(drop)?;
    Ok(back(&found.name))
}
