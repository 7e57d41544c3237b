//! Counts over the API: what stands where now, what calls came to over time, the last duplicates and the last
//! suspected doubles.

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use onceward::core::attempt::Ending;
use onceward::core::time::Timestamp;
use onceward::observe::Repeat;
use onceward::tally::{Counts, DuplicateSeen, Histogram, Place, Span, Stats, SuspectSeen};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::filter::standing_name;
use super::handler::{Answer, Asked, given, id_of, invalid, limit_of};
use crate::node::Node;
use crate::problem::Problem;
use crate::shape;
use crate::view::View;

/// The paths.
pub(super) fn router() -> Router<Arc<Node>> {
    Router::new()
        .route("/v1/stats", get(stats))
        .route("/v1/duplicates", get(duplicates))
        .route("/v1/suspects", get(suspects))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Over {
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    over: Option<String>,
}

/// Over which time is asked, where that is said.
pub(crate) fn span_of(over: Option<&String>) -> Result<Option<Span>, Problem> {
    let span = given(over).map(|name| {
        Span::parse(name).ok_or_else(|| invalid(format!("over: {name:?} is not 1h, 24h or 7d")))
    });
    span.transpose()
}

async fn stats(node: View, Asked(asked): Asked<Over>) -> Answer {
    let history = match span_of(asked.over.as_ref())? {
        Some(span) => Some(node.stats(span).await?),
        None => None,
    };
    let counts: Map<String, Value> = node
        .counts(u64::MAX)
        .await?
        .iter()
        .map(|(standing, counted)| (standing_name(*standing).to_owned(), json!(counted.count)))
        .collect();
    let in_doubt = node.oldest_in_doubt().await?.map(
        |oldest| json!({"id": oldest.id.to_string(), "created_at": shape::time(oldest.created_at)}),
    );
    let keys = node.keys_ahead().await?;
    Ok(Json(json!({
        "operations": counts,
        "oldest_due": node.oldest_due().await?.map(shape::time),
        "oldest_in_doubt": in_doubt,
        "breakers_open": node.open_breakers(),
        "keys": {"kept": keys.kept, "expiring": keys.expiring, "tombstones": keys.tombstones},
        "history": history.map(|stats| history_of(&stats)),
        "ledger": node.size().await?.map(|(bytes, commits)| json!({"bytes": bytes, "commits": commits})),
        "quarantined": node.is_quarantined(),
        "version": env!("CARGO_PKG_VERSION"),
    })))
}

fn history_of(stats: &Stats) -> Value {
    let points = stats
        .points
        .iter()
        .map(|point| json!({"at": shape::time(point.at), "counts": counts_of(&point.counts)}));
    let routes = stats.routes.iter();
    let routes = routes.map(|(name, counts)| json!({"route": name, "counts": counts_of(counts)}));
    json!({
        "over": stats.span.name(),
        "step_seconds": stats.step.as_secs(),
        "points": points.collect::<Vec<_>>(),
        "total": counts_of(&stats.total),
        "routes": routes.collect::<Vec<_>>(),
    })
}

fn counts_of(counts: &Counts) -> Value {
    let duplicates: Map<_, _> = Repeat::ALL
        .iter()
        .zip(counts.duplicates)
        .map(|(repeat, count)| (repeat.name().to_owned(), json!(count)))
        .collect();
    let endings = [Ending::Answered, Ending::Truncated, Ending::Unsent, Ending::Unanswered];
    let attempts: Map<_, _> = endings
        .iter()
        .zip(counts.attempts)
        .map(|(ending, count)| (ending.name().to_owned(), json!(count)))
        .collect();
    let statuses: Map<_, _> = (1..)
        .zip(counts.statuses)
        .map(|(class, count): (u8, _)| (format!("{class}xx"), json!(count)))
        .collect();
    json!({
        "operations": counts.operations,
        "duplicates": duplicates,
        "blocked": counts.blocked(),
        "done": counts.done,
        "recovered": counts.recovered,
        "told": counts.told,
        "dead_letters": counts.dead_letters,
        "in_doubt": counts.in_doubt,
        "attempts": attempts,
        "failed": counts.failed,
        "statuses": statuses,
        "took": quantiles(&counts.took),
        "attempt_took": quantiles(&counts.attempt_took),
    })
}

/// In seconds.
fn quantiles(took: &Histogram) -> Value {
    let seconds = |q| took.quantile(q).map(|took| took.as_secs_f64());
    json!({"count": took.count(), "p50": seconds(0.5), "p95": seconds(0.95), "p99": seconds(0.99)})
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Heeded by the view.
    #[serde(rename = "tenant")]
    _tenant: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// A place in these lists as a cursor has it: microseconds and the operation.
pub(crate) fn place_of(text: &str) -> Result<Place, Problem> {
    let (micros, id) = text.split_once('-').ok_or_else(|| invalid("cursor: not one of ours"))?;
    let micros = micros.parse().map_err(|_| invalid("cursor: not one of ours"))?;
    Ok((Timestamp::from_micros(micros), id_of(id)?))
}

/// The cursor that goes on behind a place.
pub(crate) fn cursor_at((at, operation): Place) -> String {
    format!("{}-{operation}", at.as_micros())
}

async fn duplicates(node: View, Asked(page): Asked<Page>) -> Answer {
    let before = given(page.cursor.as_ref()).map(place_of).transpose()?;
    let limit = limit_of(page.limit)?;
    let seen = node.duplicates_seen(before, limit).await?;
    let last = seen.last().filter(|_| seen.len() == limit);
    let next = last.map(|seen| cursor_at(seen.place()));
    Ok(Json(json!({"data": seen.iter().map(shown).collect::<Vec<_>>(), "next": next})))
}

fn shown(seen: &DuplicateSeen) -> Value {
    json!({
        "at": shape::time(seen.at),
        "operation": seen.operation.to_string(),
        "answer": seen.repeat.name(),
        "after_seconds": seen.after.as_secs_f64(),
        "route": seen.route,
        "tenant": seen.tenant,
        "principal": seen.principal,
    })
}

async fn suspects(node: View, Asked(page): Asked<Page>) -> Answer {
    let before = given(page.cursor.as_ref()).map(place_of).transpose()?;
    let limit = limit_of(page.limit)?;
    let seen = node.suspects_seen(before, limit).await?;
    let last = seen.last().filter(|_| seen.len() == limit);
    let next = last.map(|seen| cursor_at(seen.place()));
    Ok(Json(json!({"data": seen.iter().map(suspect).collect::<Vec<_>>(), "next": next})))
}

fn suspect(seen: &SuspectSeen) -> Value {
    json!({
        "at": shape::time(seen.at),
        "operation": seen.operation.to_string(),
        "first": seen.first.to_string(),
        "again": seen.again,
        "after_seconds": seen.after().as_secs_f64(),
        "route": seen.route,
        "tenant": seen.tenant,
        "principal": seen.principal,
    })
}
