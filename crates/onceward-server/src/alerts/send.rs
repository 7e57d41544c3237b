//! How a notice goes out: a webhook as an accepted operation, under the notice's id as its key; a mail
//! by SMTP, under the same id.

use bytes::Bytes;
use onceward::core::exchange::{Headers, Request};
use onceward::core::id::OperationId;
use onceward::core::key::TENANT;
use onceward::{Answer, Call, CallOptions};
use serde_json::Value;
use tracing::warn;

use super::book::Notice;
use super::words::subject;
use super::{AlertsConfig, ByMail, OWN_ROUTES, Way};
use crate::mail::{self, Mail};
use crate::node::Node;
use crate::problem::Problem;

/// Who calls, by the name that callers have in scopes.
pub(super) const PRINCIPAL: &str = "alerts";

/// Why a notice did not get to all.
#[derive(Debug)]
pub(super) struct Unsent {
    pub(super) why: String,
    /// The addresses that do not have it, where others do; else empty.
    pub(super) rest: Vec<String>,
}

impl From<String> for Unsent {
    fn from(why: String) -> Self {
        Self { why, rest: Vec::new() }
    }
}

/// Sends `notice`, and tells the operation that it is, where it is one: that one is on disk, and is
/// tried until it is done.
pub(super) async fn send(
    node: &Node,
    config: &AlertsConfig,
    notice: &Notice,
) -> Result<Option<OperationId>, Unsent> {
    let receiver = config.to.get(&notice.to);
    let receiver = receiver.ok_or_else(|| format!("no receiver is called {:?}", notice.to))?;
    let around = config.around();
    match &receiver.way {
        Way::Webhook => Ok(Some(call(node, notice, &around.document(notice)).await?)),
        Way::Slack => Ok(Some(call(node, notice, &around.slack(notice)).await?)),
        Way::Mail(by) => mailed(by, notice, around.mail(notice)).await.map(|()| None),
    }
}

async fn call(node: &Node, notice: &Notice, document: &Value) -> Result<OperationId, String> {
    let json = Bytes::from_static(b"application/json");
    let request = Request {
        method: "POST".to_owned(),
        // Where it goes is a secret, and its route's.
        target: "/".to_owned(),
        headers: Headers(vec![("content-type".to_owned(), json)]),
        body: document.to_string().into(),
    };
    let call = Call {
        tenant: TENANT.to_owned(),
        principal: PRINCIPAL.to_owned(),
        route: format!("{OWN_ROUTES}{}", notice.to),
        request,
        options: CallOptions {
            respond_async: true,
            key: Some(notice.id.clone()),
            via: Some(format!("{OWN_ROUTES}{}", notice.to)),
            label: Some(subject(notice).chars().take(120).collect()),
            ..CallOptions::default()
        },
    };
    match node.engine.call(call).await {
        Ok(Answer::Accepted(operation)) => Ok(operation.id),
        Ok(Answer::Upstream(answered)) => Ok(answered.operation.id),
        Ok(Answer::Passed { .. }) => Err("its route lets it pass".to_owned()),
        Err(refusal) => {
            let problem = Problem::from(refusal);
            // Whoever died behind the first call finds it there.
            let known = problem.operation.as_ref().map(|operation| operation.id);
            known.ok_or_else(|| problem.detail.clone())
        }
    }
}

async fn mailed(by: &ByMail, notice: &Notice, text: String) -> Result<(), Unsent> {
    let subject = subject(notice);
    let (to, rest) = (&by.to, &notice.rest);
    let mail =
        Mail { id: &notice.id, at: notice.at, from: &by.from, to, rest, subject: &subject, text };
    let without = mail::send(&by.server, &mail).await.map_err(|why| why.to_string())?;
    let mail::Without { refused, put_off, why } = without;
    if !refused.is_empty() {
        warn!(notice = notice.id, refused = refused.join(", "), "a mail was not taken for all");
    }
    if put_off.is_empty() {
        return Ok(());
    }
    Err(Unsent { why: format!("not for {}: {why}", put_off.join(", ")), rest: put_off })
}
