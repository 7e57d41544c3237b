//! Edit and resend, as a form: what was asked, to be changed, and a new operation of it.

use axum::extract::Path;
use bytes::Bytes;
use maud::html;
use onceward::Edit;
use onceward::core::operation::Operation;
use onceward::core::risk::risk_anew;
use onceward::secret::random;
use serde::Deserialize;

use super::acts::{Done, taken, told};
use super::frame::{Frame, Here, Html, reason};
use super::words;
use crate::node::Node;
use crate::operator::{Sent, check_target, kept, reasoned, risks};
use crate::problem::Problem;
use crate::view::View;

/// A body that is larger is not edited by hand.
const BODY_BYTES_MAX: usize = 64 << 10;

#[derive(Debug, Deserialize)]
pub(super) struct Edited {
    reason: String,
    path: String,
    /// Nothing where the body cannot be shown as text.
    body: Option<String>,
    /// Sent twice, the form makes one operation.
    key: String,
    /// The risk that is taken, by its name.
    risk: Option<String>,
}

reasoned!(Edited);

/// The body as text, where it can be edited as such.
async fn text_of(node: &Node, operation: &Operation) -> Result<Option<String>, Problem> {
    let request = kept::request(node, operation).await?;
    let forgotten = || Problem::new("no-outcome", "The request was forgotten with its window.");
    let (request, is_less) = request.ok_or_else(forgotten)?;
    // What nobody sees cannot be edited: it would be sent as it is shown.
    let text = Some(request.body).filter(|body| !is_less && body.len() <= BODY_BYTES_MAX);
    Ok(text.and_then(|body| String::from_utf8(body.to_vec()).ok()))
}

pub(super) async fn form(node: View, Path(id): Path<String>) -> Result<Html, Problem> {
    let operation = node.find(&id).await?;
    let body = text_of(&node, &operation).await?;
    let risk = risk_anew(&operation);
    let frame = Frame::of(&node).await?;
    let key = format!("made-{:032x}", u128::from_be_bytes(random()));
    let content = html! {
        h1 { "Edit and resend" }
        p.lead {
            "Makes a new operation with a key of its own. "
            a href=(words::url_of(operation.id)) { "The one that it is made of" }
            " stays as it is; the credentials of its caller go with the new one."
        }
        form.card method="post" action={ (words::url_of(operation.id)) "/resend" } {
            p { strong { (operation.method) } " on " strong { (operation.route) } }
            input type="hidden" name="key" value=(key);
            label { "Path"
                input name="path" required value=(operation.target) autocomplete="off" spellcheck="false";
            }
            @match body {
                Some(body) => label { "Body"
                    textarea name="body" rows="12" spellcheck="false" { "\n" (body) }
                },
                None => p.soft { "Its body is no text, too large to be edited here, or redacted: it goes as it is." },
            }
            @if risk.wants_a_word() && risk.can_be_taken() { (taken(risk)) }
            (reason("Reason"))
            button.careful { "Send as a new operation" }
        }
    };
    Ok(Html(frame.page(Here::Operations, "Edit and resend", &content)))
}

pub(super) async fn resend(
    node: View,
    Path(id): Path<String>,
    Sent(person, form): Sent<Edited>,
) -> Done {
    let operation = node.find(&id).await?;
    check_target(&operation.method, &form.path)?;
    // A form sends every line break as two letters: what only differs in that was not changed.
    let plain = |text: String| text.replace("\r\n", "\n");
    let before = text_of(&node, &operation).await?.map(plain);
    let body = form.body.map(plain).filter(|body| Some(body) != before.as_ref()).map(Bytes::from);
    let edit = Edit { key: Some(form.key), target: Some(form.path), body, ..Edit::default() };
    let taken = risks(form.risk.as_deref())?;
    Ok(told(&node.engine.resend_at_risk(operation.id, edit, &person, &taken).await?))
}
