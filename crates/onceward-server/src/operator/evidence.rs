//! The evidence: one document with everything that the ledger knows of an operation, for a dispute,
//! and a digest over it. What is sealed stays sealed.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::Path;
use onceward::core::attempt::Attempt;
use onceward::core::fingerprint::{Part, canonical_json};
use onceward::core::hex;
use onceward::core::id::OperationId;
use onceward::core::operation::Operation;
use onceward::core::policy::{Backoff, Policy};
use onceward::core::time::Timestamp;
use onceward::secret::sha256;
use serde_json::{Value, json};

use super::audit::shown;
use super::handler::Answer;
use super::kept;
use crate::config::{MEANINGS, MISSING, word_of};
use crate::gateway::{lines, response_document};
use crate::node::Node;
use crate::problem::Problem;
use crate::view::View;
use crate::{shape, units};

/// The shape of the document.
const VERSION: u32 = 1;

pub(super) async fn show(node: View, Path(id): Path<String>) -> Answer {
    let operation = node.find(&id).await?;
    let mut document = story(&node, &operation).await?;
    let canonical = canonical_json(document.to_string().as_bytes(), &[]);
    let canonical = canonical.ok_or_else(|| {
        Problem::new("gone-wrong", "The document has no canonical form, so nothing vouches for it.")
    })?;
    document["sha256"] = json!(hex::encode(&sha256(&canonical)));
    Ok(Json(document))
}

async fn story(node: &Node, operation: &Operation) -> Result<Value, Problem> {
    let engine = &node.engine;
    let asked = engine.store().asked(operation.id).await?;
    let mut attempts = Vec::new();
    for attempt in &operation.attempts {
        attempts.push(json!({"n": attempt.n, "answer": excerpt(node, operation, attempt).await?}));
    }
    let parts = Part::ALL.iter().zip(operation.fingerprint.parts);
    let parts: serde_json::Map<_, _> =
        parts.map(|(part, digest)| (part.name().to_owned(), json!(hex::encode(&digest)))).collect();
    let route = engine.route(&operation.route);
    Ok(json!({
        "evidence": VERSION,
        "gateway": format!("onceward {}", env!("CARGO_PKG_VERSION")),
        "made_at": shape::time(shape::now()),
        "operation": shape::operation(operation, Some(&asked), true),
        "frozen": {
            "window": units::show(operation.window),
            "tombstone": units::show(operation.tombstone),
            "upstream_window": units::show(operation.upstream_window),
            "deadline": operation.deadline.map(shape::time),
            "attempts_max": operation.attempts_max,
        },
        "fingerprint": {"version": operation.fingerprint.version, "parts": parts},
        "request": request(node, operation).await?,
        "outcome_answer": outcome(node, operation).await?,
        "attempt_answers": attempts,
        "audit": audited(node, operation).await?,
        "policy_now": route.map(|route| {
            policy(route.policy_for(&operation.method, &operation.target))
        }),
    }))
}

/// What people did to it as the audit has it, with number and digest: by itself, and in bulk.
async fn audited(node: &Node, operation: &Operation) -> Result<Vec<Value>, Problem> {
    let (Some(first), Some(last)) = (operation.acts.first(), operation.acts.last()) else {
        return Ok(Vec::new());
    };
    let engine = &node.engine;
    let mut notes = engine.notes_about(&operation.id.to_string(), first.at, last.at).await?;
    let reasons = operation.acts.iter().map(|act| act.reason.as_str());
    let bulks: BTreeSet<_> = reasons.filter_map(bulk_in).collect();
    for (bulk, begun_at) in bulks {
        notes.extend(engine.notes_about(bulk, begun_at, last.at).await?);
    }
    notes.sort_by_key(|note| note.place);
    Ok(notes.iter().map(shown).collect())
}

/// The bulk whose act it was, by its mark in the reason, and when that began.
fn bulk_in(reason: &str) -> Option<(&str, Timestamp)> {
    let name = reason.rsplit_once('[')?.1.split(']').next()?;
    let id: OperationId = format!("op_{}", name.strip_prefix("bulk_")?).parse().ok()?;
    Some((name, id.made_at()))
}

/// What was remembered, without the credentials.
async fn request(node: &Node, operation: &Operation) -> Result<Value, Problem> {
    Ok(kept::request(node, operation).await?.map_or(Value::Null, |(request, is_less)| {
        let shown = response_document(0, &request.headers, &request.body);
        json!({
            "method": request.method,
            "path": request.target,
            "headers": lines(&request.headers),
            "body": shown["body"],
            "body_base64": shown["body_base64"],
            "body_sha256": hex::encode(&sha256(&request.body)),
            "redacted": is_less,
        })
    }))
}

async fn outcome(node: &Node, operation: &Operation) -> Result<Value, Problem> {
    Ok(kept::answer(node, operation).await?.map_or(Value::Null, |answer| {
        let mut shown = response_document(answer.status, &answer.headers, &answer.body);
        shown["body_sha256"] = json!(hex::encode(&sha256(&answer.body)));
        shown
    }))
}

async fn excerpt(node: &Node, operation: &Operation, attempt: &Attempt) -> Result<Value, Problem> {
    let excerpt = kept::excerpt(node, operation, attempt).await?;
    Ok(excerpt.map_or(Value::Null, |(answer, cut)| {
        let mut shown = response_document(answer.status, &answer.headers, &answer.body);
        shown["cut"] = json!(cut);
        shown
    }))
}

/// The policy that governs it now: retries and statuses are read at each attempt.
fn policy(policy: &Policy) -> Value {
    let backoff = |backoff: &Backoff| {
        json!({
            "attempts_max": backoff.attempts_max,
            "horizon": units::show(backoff.horizon),
            "base": units::show(backoff.base),
            "floor": units::show(backoff.floor),
            "cap": units::show(backoff.cap),
            "factor": backoff.factor.to_string(),
            "table": backoff.table.iter().map(|delay| units::show(*delay)).collect::<Vec<_>>(),
        })
    };
    let statuses: std::collections::BTreeMap<String, &str> = policy
        .statuses
        .iter()
        .map(|(status, meaning)| (status.to_string(), word_of(MEANINGS, meaning)))
        .collect();
    json!({
        "effects": policy.effects.map(onceward::core::policy::Effects::name),
        "upstream_key": {
            "place": policy.upstream_key.place.to_string(),
            "window": units::show(policy.upstream_key.window),
        },
        "key_missing": word_of(MISSING, &policy.key_missing),
        "key_headers": policy.key_headers,
        "success": policy.success,
        "statuses": statuses,
        "delete_gone": policy.delete_gone,
        "held": backoff(&policy.held),
        "retry": backoff(&policy.accepted),
        "window": units::show(policy.window),
        "tombstone": units::show(policy.tombstone),
        "keep_headers": policy.keep_headers,
        "ids": policy.ids.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    })
}
