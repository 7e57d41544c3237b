//! `/upstreams`: what stands before each upstream at this node and what it came to lately, the worst
//! first, and forms to pause or resume it and to ask one whose breaker is open.

use std::cmp::Reverse;
use std::time::Duration;

use axum::extract::Path;
use axum::response::Redirect;
use maud::{Markup, html};
use onceward::core::operation::Operation;
use onceward::core::policy::Mode;
use onceward::core::time::Timestamp;
use onceward::store::{Query, Standing as Stands};
use onceward::tally::{AD_HOC, Counts, OTHER, SUBSCRIPTIONS, Span, Stats, name_of};
use onceward::{Bar, Probed, Standing};

use super::frame::{Frame, Here, Html, act, heading, number, stacked};
use super::icons::Icon;
use super::needs::{Need, Weight, few};
use super::stats::{self, Over, failing, percent, quantile, route_name, spans};
use super::words::{self, sign};
use super::{profile, send};
use crate::access::Roles;
use crate::node::Node;
use crate::operator::{Asked, Because, NOT_ASKED, Sent};
use crate::problem::Problem;
use crate::view::{View, is_callable};

/// How many are shown whole; the others have a line.
const WHOLE_MAX: usize = 20;

/// How many of what ended badly are looked at, and shown of one upstream.
const ERRORS_READ: usize = 100;
const ERRORS_SHOWN: usize = 3;

/// One upstream, and what it came to.
struct Upstream {
    name: String,
    /// How its gate stands; nothing of those that are many.
    standing: Option<Standing>,
    counts: Counts,
}

impl Upstream {
    /// The worst come first: what is held back, then what fails most.
    fn order(&self) -> (u8, Reverse<u64>, Reverse<u64>, &str) {
        let rank = self.standing.as_ref().map_or(CLEAR, rank);
        let share = failing(&self.counts).map_or(0, |share| (share * 100.0) as u64);
        (rank, Reverse(share), Reverse(self.counts.failed), &self.name)
    }

    fn hurts(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| rank(standing) < CLEAR)
            || self.counts.failed > 0
    }
}

/// Those that are there for who looks, the worst first.
fn all(node: &View, stats: &Stats) -> Vec<Upstream> {
    let counts = |name: &str| stats.routes.iter().find(|(route, _)| route == name);
    let counts = |name: &str| counts(name).map(|(_, counts)| counts.clone()).unwrap_or_default();
    let mut all: Vec<_> = kept(node)
        .map(|(name, standing)| Upstream { counts: counts(&name), standing: Some(standing), name })
        .collect();
    let many = [AD_HOC, SUBSCRIPTIONS, OTHER].map(|name| Upstream {
        name: name.to_owned(),
        standing: None,
        counts: counts(name),
    });
    all.extend(many.into_iter().filter(|it| it.counts != Counts::default()));
    all.sort_by(|one, other| one.order().cmp(&other.order()));
    all
}

/// From here on nothing stands before it that somebody may want to look at.
const HELD: u8 = 3;

/// Held back by nothing.
const CLEAR: u8 = 5;

/// The worst come first.
fn rank(standing: &Standing) -> u8 {
    match (standing.bar, standing.breaker) {
        (Some(Bar::BreakerOpen), _) => 0,
        (Some(Bar::Paused), _) => 1,
        (Some(Bar::UpstreamAsked), _) => 2,
        (Some(_), _) => HELD,
        (None, "closed") => CLEAR,
        (None, _) => 4,
    }
}

fn kept(node: &View) -> impl Iterator<Item = (String, Standing)> {
    node.gates().into_iter().filter(|(name, _)| node.check_kept(name).is_ok())
}

/// An upstream that asks for less time to be left alone needs nobody.
const BRIEF: Duration = Duration::from_mins(1);

/// What of upstreams needs somebody, the worst first: a breaker that is open, a person's pause, and one
/// that has asked to be left alone for long.
pub(super) fn needs(node: &View, now: Timestamp) -> Vec<Need> {
    let is_long = |standing: &Standing| {
        standing.bar != Some(Bar::UpstreamAsked)
            || standing.until.is_some_and(|until| until.since(now) > BRIEF)
    };
    let mut held: Vec<_> =
        kept(node).filter(|(_, standing)| rank(standing) < HELD && is_long(standing)).collect();
    held.sort_by_key(|(name, standing)| (rank(standing), name.clone()));
    let paused = node.engine.paused();
    let needs = held.into_iter().map(|(name, standing)| {
        let until = html! { @if let Some(until) = standing.until { ", asked again " (words::time(until, now)) } };
        let (weight, icon, act, why) = match standing.bar {
            Some(Bar::BreakerOpen) => {
                (Weight::Bad, Icon::Open, "Look", html! { "breaker open" (until) })
            }
            Some(Bar::UpstreamAsked) => (
                Weight::Doubtful,
                Icon::Pending,
                "Look",
                html! { "it asked to be left alone" (until) },
            ),
            _ => (Weight::Meant, Icon::Paused, "Resume", html! {
                "paused" @if let Some(pause) = paused.get(&name) {
                    " by " bdi { (pause.who) } ", " (words::time(pause.at, now)) ": " bdi { (pause.reason) }
                }
            }),
        };
        let what = html! { strong { "Upstream " (name) } ": " (why) };
        let need = Need::of(Here::Upstreams, weight, icon, what, (act, &place(&name)));
        Need { route: Some(name), ..need }
    });
    few(needs.collect(), "upstreams are held back")
}

/// Where an upstream stands on its page.
pub(crate) fn place(name: &str) -> String {
    format!("/upstreams#{}", anchor(name))
}

fn anchor(name: &str) -> String {
    format!("upstream-{}", name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-"))
}

/// The upstreams that hurt, in a table.
pub(super) fn worst(node: &View, stats: &Stats, max: usize, now: Timestamp) -> Markup {
    let all = all(node, stats);
    let hurting: Vec<_> = all.iter().filter(|upstream| upstream.hurts()).collect();
    html! {
        @if !hurting.is_empty() {
            section #worst {
                h2 { "Upstreams that hurt" span.soft.small { " · worst first, over " (stats::words(stats.span)) } }
                (lines(node, hurting.iter().copied().take(max), now))
                @if all.len() > hurting.len().min(max) {
                    p.more { a href={ "/upstreams?over=" (stats.span.name()) } { "All upstreams" } }
                }
            }
        }
    }
}

fn lines<'a>(node: &View, all: impl Iterator<Item = &'a Upstream>, now: Timestamp) -> Markup {
    stacked(
        "Upstreams",
        &html! {
            th { "Upstream" } th { "State" } th.number { "Attempts" } th.number { "Failing" }
            th.number { "p95" } th.number { "Dead letters" } th.number { "In doubt" }
        },
        &html! {
            @for Upstream { name, standing, counts } in all {
                tr {
                    td.what { a href=(place(name)) { strong { (route_name(name)) } } }
                    td.says data-label="State" { @if let Some(standing) = standing { (flows(node, name, standing, counts, now)) } @else { "-" } }
                    td.number data-label="Attempts" { (number(counts.attempts.iter().sum())) }
                    td.number.bad[counts.failed > 0] data-label="Failing" { (failing(counts).map_or_else(|| "-".to_owned(), percent)) }
                    td.number data-label="p95" { (quantile(&counts.attempt_took, 0.95)) }
                    td.number data-label="Dead letters" { (number(counts.dead_letters)) }
                    td.number data-label="In doubt" { (number(counts.in_doubt)) }
                }
            }
        },
    )
}

pub(super) async fn show(node: View, Asked(over): Asked<Over>) -> Result<Html, Problem> {
    let span = over.span(Span::Hour)?;
    let frame = Frame::of(&node).await?;
    let stats = node.stats(span).await?;
    let now = crate::shape::now();
    let standing = vec![Stands::DeadLetter, Stands::Told, Stands::InDoubt];
    let bad = Query { standing, limit: ERRORS_READ, ..Query::default() };
    let bad = node.list(bad).await?.operations;
    let all = all(&node, &stats);
    let (whole, others) = all.split_at(all.len().min(WHOLE_MAX));
    let content = html! {
        (heading("Upstreams", &html! {
            "What stands before each route's upstream at this node, and what it came to. What is held back "
            "waits in the ledger, and nothing of it is lost."
            @if !node.may(Roles::OPERATE) { " To pause, resume or ask one needs the role operate." }
        }, "/v1/routes"))
        @if all.is_empty() {
            div.empty.card {
                p { strong { "No routes are configured." } " A route names an upstream and its policy:" }
                pre { code { (EXAMPLE) } }
            }
        } @else { p { (spans("/upstreams", span)) } }
        @for upstream in whole {
            @let errors = bad.iter().filter(|it| name_of(&it.route) == upstream.name).take(ERRORS_SHOWN);
            (card(&node, upstream, &errors.collect::<Vec<_>>(), now))
        }
        @if !others.is_empty() {
            h2 { "The others" }
            (lines(&node, others.iter(), now))
        }
    };
    Ok(Html(frame.page(Here::Upstreams, "Upstreams", &content)))
}

const EXAMPLE: &str = "[routes.billing]
upstream = \"https://billing.internal\"
effects  = \"keyed\"";

fn card(node: &View, upstream: &Upstream, errors: &[&Operation], now: Timestamp) -> Markup {
    let Upstream { name, standing, counts } = upstream;
    let route = node.engine.route(name);
    html! {
        article.card.upstream id=(anchor(name)) aria-label=(name) {
            header.heading {
                div {
                    h2 { (route_name(name)) }
                    @if let Some(route) = &route { code.soft { (route.target.base) } }
                }
                @if let Some(standing) = standing {
                    div.tools {
                        (flows(node, name, standing, counts, now))
                        @if node.may(Roles::OPERATE) { (forms(node, name, standing)) }
                    }
                }
            }
            (facts(node, upstream))
            p.soft.small {
                @if counts.attempts.iter().sum::<u64>() > 0 {
                    "Attempts: " (words::endings(&counts.attempts)) ". Answers: " (words::classes(&counts.statuses)) ". "
                }
                // What is many has no route by which it is found.
                @if standing.is_some() {
                    a href={ "/operations?route=" (words::in_query(name)) } { "Its operations" }
                    @if node.may(Roles::SEND) && is_callable(name) {
                        " · " a href=(send::place(node.named(), name)) { "Send a call" }
                    }
                }
            }
            @if !errors.is_empty() {
                h3 { "Last that ended badly" }
                ul.lines {
                    @for operation in errors {
                        li {
                            (words::chip(operation)) " "
                            a href=(words::url_of(operation.id)) { bdi { (operation.key.as_str()) } } " "
                            span.soft { (words::last(operation)) ", "
                                (words::time(operation.ended_at.unwrap_or(operation.created_at), now)) }
                        }
                    }
                }
            }
            @if let Some(route) = &route { (profile::of(route)) }
        }
    }
}

fn facts(node: &View, upstream: &Upstream) -> Markup {
    let Upstream { name, standing, counts } = upstream;
    let slots = node.engine.route(name).map(|route| route.protection.slots_max);
    let attempts: u64 = counts.attempts.iter().sum();
    let fact = |name: &str, value: Markup, note: &str| {
        html! { div { dt { (name) } dd { (value) @if !note.is_empty() { " " span.soft.small { (note) } } } } }
    };
    let took = |share| quantile(&counts.attempt_took, share);
    html! {
        dl.facts {
            @if let Some(standing) = standing {
                (fact("Under way", html! { (standing.busy) },
                    &format!("of {} slots; {} wait", slots.unwrap_or_default(), standing.waiting)))
            }
            (fact("Failing", html! { span.bad[counts.failed > 0] { (failing(counts).map_or_else(|| "-".to_owned(), percent)) } },
                &format!("of {} attempts", number(attempts))))
            (fact("An attempt takes, p95", html! { (took(0.95)) },
                &if attempts == 0 { String::new() } else { format!("p50 {}, p99 {}", took(0.5), took(0.99)) }))
            (fact("Duplicates blocked", html! { (number(counts.blocked())) }, ""))
            (fact("Dead letters", html! { (number(counts.dead_letters)) }, ""))
            (fact("In doubt", html! { (number(counts.in_doubt)) }, ""))
        }
    }
}

/// How it is: what stands before it, and where nothing does, what it came to.
fn flows(node: &Node, name: &str, standing: &Standing, counts: &Counts, now: Timestamp) -> Markup {
    let until = html! { @if let Some(until) = standing.until { " asked again " (words::time(until, now)) } };
    let paused = node.engine.paused();
    match standing.bar {
        Some(Bar::Paused) => html! {
            (sign("told", Icon::Paused, "paused"))
            @if let Some(pause) = paused.get(name) {
                " " span.label { "by " (pause.who) " " (words::time(pause.at, now)) ": " (pause.reason) }
            }
        },
        Some(Bar::BreakerOpen) => {
            html! { (sign("dead", Icon::Open, "breaker open")) (until) (last_probe(standing.probed.as_ref(), now)) }
        }
        Some(Bar::UpstreamAsked) => {
            html! { (sign("doubt", Icon::Pending, "it asked to be left alone")) (until) }
        }
        Some(Bar::Rate | Bar::Slots) | None if standing.breaker != "closed" => {
            let is_open = standing.breaker == "open";
            let says = if is_open {
                "breaker open: a probe is next"
            } else {
                "breaker half-open: it is probed"
            };
            html! { (sign("doubt", Icon::HalfOpen, says)) (last_probe(standing.probed.as_ref(), now)) }
        }
        Some(Bar::OutsideHours) => sign("told", Icon::Pending, "outside its hours"),
        Some(Bar::Rate | Bar::Slots) | None => html! {
            (health(counts))
            @if let Some(opens) = opens_later(node, name, now) {
                " " span.label { "accepted ones wait for its hours, which begin " (words::time(opens, now)) }
            }
        },
    }
}

/// From which share on it is said that an upstream fails, in per cent, and from which on in red.
const FAILS_FROM: f64 = 10.0;
const FAILS_BADLY_FROM: f64 = 50.0;

/// What attempts at an upstream came to: that calls go to it says nothing of that.
fn health(counts: &Counts) -> Markup {
    let of = counts.attempts.iter().sum();
    match failing(counts) {
        None => sign("told", Icon::Pending, "takes calls; none went"),
        Some(share) if share >= FAILS_FROM => {
            let class = if share >= FAILS_BADLY_FROM { "dead" } else { "doubt" };
            let says = format!("fails {} of {}", percent(share), number(of));
            html! { (sign(class, Icon::Warning, &says)) " " span.label { "takes calls" } }
        }
        Some(_) => sign("done", Icon::Done, "takes calls"),
    }
}

/// When accepted work may go, where it may not now.
fn opens_later(node: &Node, name: &str, now: Timestamp) -> Option<Timestamp> {
    let opens = node.engine.route(name)?.policy.opening(Mode::Accepted, now);
    (opens > now).then_some(opens)
}

/// What the last probe came to, where nobody sends anything else.
fn last_probe(probed: Option<&Probed>, now: Timestamp) -> Markup {
    html! {
        @if let Some(probed) = probed {
            " " span.label { "· last probe " (words::time(probed.at, now)) ": "
                @match (probed.status, &probed.error) {
                    (Some(status), _) => (words::status(status)),
                    (None, error) => bdi { (error.as_deref().unwrap_or("no answer")) },
                }
            }
        }
    }
}

fn forms(node: &Node, name: &str, standing: &Standing) -> Markup {
    let is_paused = node.engine.paused().contains_key(name);
    let (path, word) = if is_paused { ("resume", "Resume") } else { ("pause", "Pause") };
    let route = node.engine.route(name);
    let health = route.as_ref().and_then(|route| route.protection.health.as_deref());
    let path_of = |path: &str| format!("/upstreams/{}/{path}", words::in_path(name));
    html! {
        // A pause holds probes too.
        @if standing.breaker != "closed" && !is_paused {
            (act("Ask now", &path_of("probe"), &html! {
                p.soft.small {
                    "Sends probes at once: "
                    @if let Some(health) = health { "GET " code { (health) } } @else { "HEAD, which changes nothing" }
                    ". What the upstream answers decides: the breaker closes, or stays open until it would have been asked."
                }
            }, &format!("Ask {name} now")))
        }
        (act(word, &path_of(path), &html! {}, &format!("{word} {name}")))
    }
}

pub(super) async fn pause(
    node: View,
    Path(route): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Result<Redirect, Problem> {
    node.engine.pause(&route, &person).await?;
    Ok(Redirect::to("/upstreams"))
}

pub(super) async fn resume(
    node: View,
    Path(route): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Result<Redirect, Problem> {
    node.engine.resume(&route, &person).await?;
    Ok(Redirect::to("/upstreams"))
}

/// Back to the upstream, which says what came of it.
pub(super) async fn probe(
    node: View,
    Path(route): Path<String>,
    Sent(person, _): Sent<Because>,
) -> Result<Redirect, Problem> {
    node.check_released(NOT_ASKED)?;
    node.engine.probe_now(&route, &person).await?;
    Ok(Redirect::to(&place(&route)))
}
