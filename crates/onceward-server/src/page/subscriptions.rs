//! `/subscriptions`: who is told of which events and how each receiver does, with forms to pause it, to try it
//! and to recover what it missed or what failed there.

use axum::extract::Path;
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::event::{Event, TypePattern};
use onceward::core::operation::{Operation, State};
use onceward::core::time::Timestamp;
use onceward::store::{Query, Standing};
use onceward::{Bar, Destination, Subscription};
use serde::Deserialize;
use url::form_urlencoded::Serializer;

use super::frame::{Frame, Here, Html, act, heading, reason};
use super::icons::Icon;
use super::needs::receiver;
use super::words::{self, sign};
use crate::access::Roles;
use crate::operator::events::tried;
use crate::operator::{Asked, Because, Sent, given, id_of, invalid, moment, reasoned};
use crate::problem::Problem;
use crate::view::View;

/// How many are shown whole.
const SHOWN_MAX: usize = 100;

/// Dead letters of each that are shown, and deliveries of each that are counted.
const DEAD_SHOWN: usize = 3;
const DELIVERIES_READ: usize = 50;

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
        let last = deliveries(&node, subscription, Vec::new(), DELIVERIES_READ).await?;
        let dead = vec![Standing::DeadLetter];
        let dead = deliveries(&node, subscription, dead, DEAD_SHOWN).await?;
        cards.push(card(&node, subscription, &last, &dead, now));
    }
    let content = html! {
        (heading("Subscriptions", &html! {
            "Who is told of which events. What a receiver cannot take now waits for it; what failed for good is a dead letter."
            @if !node.may(Roles::OPERATE) { " To pause, try or recover one needs the role operate." }
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

/// The last deliveries to a receiver, the newest first.
async fn deliveries(
    node: &View,
    subscription: &Subscription,
    standing: Vec<Standing>,
    limit: usize,
) -> Result<Vec<Operation>, Problem> {
    let query = Query {
        standing,
        tenant: Some(subscription.tenant.clone()),
        route: Some(subscription.route_name()),
        limit,
        ..Query::default()
    };
    Ok(node.list(query).await?.operations)
}

/// What a receiver's last deliveries came to.
#[derive(Default)]
struct Came {
    of: usize,
    done: usize,
    dead: usize,
    /// What is not over.
    waits: usize,
    /// When the next of them is tried.
    next: Option<Timestamp>,
}

impl Came {
    fn of(last: &[Operation]) -> Self {
        let mut came = Self { of: last.len(), ..Self::default() };
        for delivery in last {
            match delivery.state {
                State::Done => came.done += 1,
                State::Dead(_) => came.dead += 1,
                State::Pending { due } => {
                    came.waits += 1;
                    came.next = Some(came.next.map_or(due, |next| next.min(due)));
                }
                State::Delivering | State::InDoubt => came.waits += 1,
            }
        }
        came
    }

    /// Of how many this is told.
    fn basis(&self) -> String {
        match self.of {
            DELIVERIES_READ => format!("of the last {DELIVERIES_READ}"),
            of => format!("of {of}"),
        }
    }
}

/// The attempt that ended last, in words, and when it did.
fn last_result(last: &[Operation]) -> Option<(String, Timestamp)> {
    let ended =
        |it: &Operation| Some(it.attempts.iter().rev().find_map(|it| it.ended.as_ref())?.at);
    let (delivery, at) =
        last.iter().filter_map(|it| Some((it, ended(it)?))).max_by_key(|(_, at)| *at)?;
    Some((words::last(delivery), at))
}

fn card(
    node: &View,
    subscription: &Subscription,
    last: &[Operation],
    dead: &[Operation],
    now: Timestamp,
) -> Markup {
    let Subscription { name, wish, .. } = subscription;
    let route = subscription.route_name();
    let pause = node.engine.paused().get(&route).cloned();
    let standing = node.engine.standing(&route);
    let (url, target) = match &wish.to {
        Destination::Url(url) => (url.to_string(), None),
        Destination::Route { name, target } => (target.clone(), Some(name.clone())),
    };
    let title = receiver(subscription);
    let came = Came::of(last);
    let fails = pause.is_none() && subscription.failing_since.is_some();
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
                            (sign("dead", Icon::Warning, "fails")) " " span.label { "since " (words::time(since, now)) }
                        }
                        (None, true, None) => { (sign("done", Icon::Done, "takes events")) }
                    }
                    @if node.may(Roles::OPERATE) { (steer(name, pause.is_some())) }
                }
            }
            dl.facts {
                (fact("Delivered", html! { (came.done) " " span.soft.small { (came.basis()) } }))
                (fact("Wait", html! { (came.waits)
                    @if let Some(next) = came.next.filter(|_| pause.is_none()) {
                        " " span.soft.small {
                            @if next > now { "next try " (words::time(next, now)) }
                            @else { "due since " (words::time(next, now)) }
                        }
                    } }))
                (fact("Dead", html! { span.bad[came.dead > 0] { (came.dead) } }))
                @if let Some((result, at)) = last_result(last) {
                    div.wide { dt { "Last result" } dd { span.bad[fails] { (result) } " " span.soft.small { (words::time(at, now)) } } }
                }
                @if standing.as_ref().is_some_and(|standing| standing.bar == Some(Bar::BreakerOpen)) {
                    (fact("Its breaker", html! { span.bad { "open" }
                        @if let Some(until) = standing.as_ref().and_then(|it| it.until) {
                            " " span.soft.small { "asked again " (words::time(until, now)) }
                        } }))
                }
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
            details.profile {
                summary { "What it is told of" }
                dl.facts {
                    (fact("Types", html! { @if types.is_empty() { "all" } @else { code { (types.join(" ")) } } }))
                    (fact("Filter", html! { @match &wish.selection.filter { Some(filter) => code { (filter.source()) }, None => "none" } }))
                    (fact("Under way", html! { (standing.as_ref().map_or(0, |standing| standing.busy)) }))
                    (fact("Secrets that sign", html! { (subscription.signing.len()) }))
                    (fact("Version", html! { (subscription.version) }))
                }
            }
            @if node.may(Roles::OPERATE) { div.tools { (recovery(name)) (trial(name)) } }
        }
    }
}

fn steer(name: &str, is_paused: bool) -> Markup {
    let (path, word) = if is_paused { ("resume", "Resume") } else { ("pause", "Pause") };
    act(word, &format!("/subscriptions/{name}/{path}"), &html! {}, &format!("{word} it"))
}

fn recovery(name: &str) -> Markup {
    let fields = html! {
        label { "What"
            select name="what" {
                option value="failed" { "send again what failed" }
                option value="missed" { "deliver what was missed" }
            }
        }
        label { "Since" input name="since" required value="24h" maxlength="40" autocomplete="off"; }
    };
    act("Recover", &format!("/subscriptions/{name}/recover"), &fields, "Recover")
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
    act("Test", &format!("/subscriptions/{name}/test"), &html! {}, "Send a test event")
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
