//! What needs somebody: one list of all that may, of which come the overview's lines, the counts beside the
//! ways and the alerts of every page. Each part of it is asked by itself and says what is so where nothing
//! needs anybody, so that a calm page says what was looked at and no more.
//!
//! Every page asks; so each part is a number that is kept, or a page of a few.

use std::time::Duration;

use maud::{Markup, html};
use onceward::Subscription;
use onceward::core::saga::Standing as OfSaga;
use onceward::core::time::Timestamp;
use onceward::store::{Counted, Standing};

use super::alerts::{alerted, own_lines};
use super::frame::{Frame, Here, counted, exactly, number};
use super::icons::Icon;
use super::{upstreams, words};
use crate::alerts::{Alert, Firing, Kind};
use crate::operator::subscriptions::state_of;
use crate::outbox::{Shown, Stands};
use crate::problem::Problem;
use crate::view::View;

/// How many of the same page have a line of their own; the others have one together.
const LINES_MAX: usize = 3;

/// An outbox whose oldest row waits for longer is behind.
const OUTBOX_LATE: Duration = Duration::from_mins(5);

/// How much it needs somebody; the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Something is lost, stands still or may be doubled.
    Bad,
    /// Something may become so, and whoever knows can tell.
    Doubtful,
    /// Somebody did it on purpose.
    Meant,
}

impl Weight {
    fn class(self) -> &'static str {
        match self {
            Self::Bad => "dead",
            Self::Doubtful => "doubt",
            Self::Meant => "told",
        }
    }
}

/// One thing that needs somebody, and the way to where they act.
#[derive(Clone)]
pub(super) struct Need {
    /// The page of its kind, which has its count beside its way.
    pub(super) here: Here,
    pub(super) weight: Weight,
    pub(super) icon: Icon,
    /// How many it is about.
    pub(super) many: Counted,
    pub(super) what: Markup,
    pub(super) path: String,
    /// What one does there.
    pub(super) act: &'static str,
    /// The route that it is about, where it is about one.
    pub(super) route: Option<String>,
}

impl Need {
    /// One thing, of no one route: what it is, and where and how somebody sees to it.
    pub(super) fn of(
        here: Here,
        weight: Weight,
        icon: Icon,
        what: Markup,
        (act, path): (&'static str, &str),
    ) -> Self {
        let (many, path) = (exactly(1), path.to_owned());
        Self { here, weight, icon, many, what, path, act, route: None }
    }

    /// The same of so many, where there are any.
    pub(super) fn of_many(self, many: Counted) -> Option<Self> {
        many.is_some().then_some(Self { many, ..self })
    }

    /// Whether an alert speaks of the same.
    fn is_about(&self, alert: &Alert) -> bool {
        let here = match alert.kind {
            Kind::InDoubt => Here::InDoubt,
            Kind::DeadLetters => Here::Dead,
            Kind::BreakerOpen => Here::Upstreams,
            Kind::BacklogOld => Here::Operations,
            Kind::LateDuplicates => Here::Duplicates,
            Kind::SagaStuck => Here::Sagas,
            Kind::DiskLow => Here::Overview,
        };
        // Those beyond the first of a page are of no one route.
        self.here == here
            && (here != Here::Upstreams || self.route.is_none() || self.route == alert.route)
    }

    fn line(&self, alerts: &[&Firing], now: Timestamp) -> Markup {
        html! {
            a class=(self.weight.class()) href=(self.path) {
                (self.icon.show())
                span { (self.what) "." @if !alerts.is_empty() { " " (alerted(alerts, self.route.is_none(), now)) } }
                span.go { (self.act) }
            }
        }
    }
}

/// All that needs somebody, and what was asked.
#[derive(Default)]
pub(super) struct Needs {
    list: Vec<Need>,
    /// What is so where nothing came of asking.
    asked: Vec<&'static str>,
}

impl Needs {
    /// What every page asks.
    pub(super) async fn of(node: &View, frame: &Frame, now: Timestamp) -> Result<Self, Problem> {
        let mut needs = Self::default();
        needs.ask("no upstream is held back for long", upstreams::needs(node, now));
        needs.ask("nothing in doubt", in_doubt(frame.count(&[Standing::InDoubt])));
        needs.ask("no dead letters", dead(frame.count(&[Standing::DeadLetter])));
        let sagas = node.open_sagas().await?;
        needs
            .ask("no saga is stuck", stuck(sagas.get(&OfSaga::Stuck).copied().unwrap_or_default()));
        if !node.sources().is_empty() {
            needs.ask("no webhook was refused in an hour", refused(node, now).await?);
        }
        let subscriptions = node.subscriptions().await?;
        if !subscriptions.is_empty() {
            needs.ask("every receiver of events takes them", receivers(node, &subscriptions, now));
        }
        if !frame.outboxes.is_empty() {
            let lines = frame.outboxes.iter().filter_map(|(outbox, shown)| {
                let (weight, what) = outbox_need(shown)?;
                let what = html! { strong { "Outbox " (outbox.name) } ": " (what) };
                let way = ("Look", "/outboxes");
                Some(Need::of(Here::Outboxes, weight, Icon::Outboxes, what, way))
            });
            needs.ask("every outbox is read to its end", few(lines.collect(), "outboxes"));
        }
        if node.alerts.is_watching().0 {
            // They are told with what they speak of.
            needs.ask("no alert fires", None);
        }
        Ok(needs)
    }

    /// Takes what came of asking; `calm` is what is so where that is nothing.
    pub(super) fn ask(&mut self, calm: &'static str, found: impl IntoIterator<Item = Need>) {
        self.asked.push(calm);
        self.list.extend(found);
    }

    /// Whether anything needs somebody.
    pub(super) fn is_some(&self) -> bool {
        !self.list.is_empty()
    }

    /// Says more of what is at a page.
    pub(super) fn add(&mut self, here: Here, more: &Markup) {
        for need in self.list.iter_mut().filter(|need| need.here == here) {
            need.what = html! { (need.what) (more) };
        }
    }

    /// How many are at a page, and how much they need somebody.
    pub(super) fn at(&self, here: Here) -> Option<(Counted, &'static str)> {
        let of_it = || self.list.iter().filter(|need| need.here == here);
        let worst = of_it().map(|need| need.weight).min()?;
        Some((of_it().map(|need| need.many).sum(), worst.class()))
    }

    /// The list, the worst first: an alert stands with what it speaks of, and has a line of its own where
    /// nothing else does.
    pub(super) fn show(&self, alerts: &[Firing], now: Timestamp) -> Markup {
        let mut list: Vec<_> = self.list.iter().collect();
        list.sort_by_key(|need| need.weight);
        let has_own = |alert: &Alert| {
            self.list.iter().any(|need| need.route.is_some() && need.is_about(alert))
        };
        let of = |need: &Need| -> Vec<&Firing> {
            let is_its =
                |alert: &Alert| need.is_about(alert) && (need.route.is_some() || !has_own(alert));
            alerts.iter().filter(|firing| is_its(&firing.alert)).collect()
        };
        let is_alone =
            |firing: &&Firing| !self.list.iter().any(|need| need.is_about(&firing.alert));
        let alone: Vec<_> = alerts.iter().filter(is_alone).collect();
        html! {
            ul.needs #needs aria-label="What needs somebody" {
                (own_lines(&alone, now))
                @for need in &list { li { (need.line(&of(need), now)) } }
                @if list.is_empty() && alone.is_empty() {
                    li { p.done { (Icon::Done.show()) span { strong { "Nothing needs anybody" }
                        ": " (self.asked.join(", ")) "." } } }
                }
            }
        }
    }
}

/// The first of these, and those beyond in one line.
pub(super) fn few(mut needs: Vec<Need>, what: &str) -> Vec<Need> {
    if needs.len() <= LINES_MAX + 1 {
        return needs;
    }
    needs.sort_by_key(|need| need.weight);
    let more = needs.split_off(LINES_MAX);
    let Some(first) = more.first() else { return needs };
    let (path, _) = first.path.split_once('#').unwrap_or((&first.path, ""));
    needs.push(Need {
        what: html! { "And " strong { (more.len()) " more " (what) } },
        many: more.iter().map(|need| need.many).sum(),
        path: path.to_owned(),
        act: "All of them",
        route: None,
        ..first.clone()
    });
    needs
}

fn in_doubt(many: Counted) -> Option<Need> {
    let what = html! { strong { (counted(many)) " in doubt" }
    ": sent or begun, and nobody has said whether it was done" };
    let way = ("Resolve", "/in-doubt");
    Need::of(Here::InDoubt, Weight::Doubtful, Icon::Doubt, what, way).of_many(many)
}

fn dead(many: Counted) -> Option<Need> {
    let what = html! { strong { (counted(many)) @if many == exactly(1) { " dead letter" } @else { " dead letters" } }
    ": ended badly, and nobody was told" };
    let way = ("Look why", "/dead");
    Need::of(Here::Dead, Weight::Bad, Icon::Dead, what, way).of_many(many)
}

fn stuck(many: u64) -> Option<Need> {
    let what = html! { strong { (number(many)) @if many == 1 { " saga is" } @else { " sagas are" } " stuck" }
    ": part of it is done, and only a person can say how to go on" };
    let way = ("Lead it on", "/sagas?state=stuck");
    Need::of(Here::Sagas, Weight::Bad, Icon::Sagas, what, way).of_many(exactly(many))
}

/// Sources whose webhooks are refused, a line each.
async fn refused(node: &View, now: Timestamp) -> Result<Vec<Need>, Problem> {
    let lines = node.refused().await?.into_iter().map(|refused| {
        let what = html! {
            strong { "Source " (refused.source) } ": " (refused.many())
            @if refused.count == 1 { " webhook" } @else { " webhooks" }
            " refused in an hour, the last " (words::time(refused.last, now))
            " (" (refused.reason.replace('_', " ")) ")"
        };
        let place = format!("/sources#source-{}", refused.source);
        Need::of(Here::Sources, Weight::Doubtful, Icon::Sources, what, ("Look why", &place))
    });
    Ok(few(lines.collect(), "sources refuse webhooks"))
}

/// Receivers of events that fail, and those that are paused, a line for each kind.
fn receivers(node: &View, all: &[Subscription], now: Timestamp) -> Vec<Need> {
    let need = |weight, icon, of: &[&Subscription], what| {
        let path = match of {
            [one] => format!("/subscriptions#{}", one.name),
            _ => "/subscriptions".to_owned(),
        };
        let many = exactly(of.len() as u64);
        Need::of(Here::Subscriptions, weight, icon, what, ("Look", &path)).of_many(many)
    };
    let of = |state| all.iter().filter(|it| state_of(node, it) == state).collect::<Vec<_>>();
    let named = |of: &[&Subscription], verbs: [&str; 2]| match of {
        [one] => html! { strong { "Receiver " bdi { (receiver(one)) } } " " (verbs[0]) },
        many => html! { strong { (many.len()) " receivers of events" } " " (verbs[1]) },
    };
    let (failing, paused) = (of("failing"), of("paused"));
    let since = failing.iter().filter_map(|it| it.failing_since).min();
    let fail = html! {
        (named(&failing, ["fails", "fail"]))
        @if let Some(since) = since { ", since " (words::time(since, now)) }
        (waits(failing.len()))
    };
    let stand = html! { (named(&paused, ["is paused", "are paused"])) (waits(paused.len())) };
    let failing = need(Weight::Bad, Icon::Subscriptions, &failing, fail);
    failing.into_iter().chain(need(Weight::Meant, Icon::Paused, &paused, stand)).collect()
}

fn waits(receivers: usize) -> Markup {
    html! { ": what is for " @if receivers == 1 { "it" } @else { "them" } " waits" }
}

/// What a receiver is called.
pub(super) fn receiver(subscription: &Subscription) -> &str {
    let description = &subscription.wish.description;
    if description.is_empty() { &subscription.name } else { description }
}

/// What is wrong with an outbox, where anything is.
fn outbox_need(shown: &Shown) -> Option<(Weight, Markup)> {
    let late = shown.lag.filter(|lag| *lag > OUTBOX_LATE);
    let parked = shown.parked_now;
    if shown.stands == Stands::Failing {
        let why = shown.error.as_ref().map_or("", |(why, _)| why);
        return Some((
            Weight::Bad,
            html! { "it cannot be read" @if !why.is_empty() { ": " (why) } },
        ));
    }
    if let Some(late) = late {
        return Some((
            Weight::Bad,
            html! { "its oldest row has waited for " (words::duration(late)) },
        ));
    }
    let rows = if parked == 1 { "row is" } else { "rows are" };
    let what = html! { (parked) " " (rows) " parked: it can never become a call as it is" };
    (parked > 0).then_some((Weight::Doubtful, what))
}
