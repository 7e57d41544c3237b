//! Saved filters on the list that they narrow: found again there, saved, and deleted.

use axum::extract::Extension;
use axum::response::Redirect;
use maud::{Markup, html};
use serde::Deserialize;

use super::acts::Done;
use super::filter::Filtered;
use super::viewer;
use crate::access::{Caller, Roles};
use crate::operator::{Filled, Filter, filters};
use crate::saved::{NAME_LETTERS_MAX, Saved};
use crate::view::View;

/// Those of the tenant; and a form that saves the present filter, or deletes it where it is one of them.
pub(super) fn bar(node: &View, all: &[Saved], filter: &Filter) -> Markup {
    let written = filter.written();
    let present = all.iter().find(|saved| saved.query == written);
    let may_change = node.may(Roles::OPERATE);
    html! {
        @if !all.is_empty() || (may_change && filter.is_set()) {
            nav.saved aria-label="Saved filters" {
                @for saved in all {
                    a.quiet href={ "/operations?" (saved.query) } title={ "Saved by " (saved.who) }
                        aria-current=[(Some(saved) == present).then_some("true")] { bdi { (saved.name) } }
                }
                @if may_change && filter.is_set() {
                    @match present {
                        Some(saved) => form method="post" action={ "/filters/delete?" (written) } {
                            (viewer::token())
                            input type="hidden" name="name" value=(saved.name);
                            button.quiet { "Delete " bdi { (saved.name) } }
                        },
                        None => details.act name="act" {
                            summary.quiet { "Save this filter" }
                            form method="post" action={ "/filters?" (written) } {
                                (viewer::token())
                                label { "Name"
                                    input name="name" required maxlength=(NAME_LETTERS_MAX) autocomplete="off";
                                }
                                button { "Save" }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Named {
    name: String,
}

/// `POST /filters`: saves the filter that the address says, in the place of no other.
pub(super) async fn save(
    node: View,
    Extension(caller): Extension<Caller>,
    Filtered(filter): Filtered,
    Filled(form): Filled<Named>,
) -> Done {
    let name = form.name.trim().to_owned();
    let saved = filters::saved(&node, &caller, name, &filter, String::new(), false).await?;
    Ok(Redirect::to(&format!("/operations?{}", saved.query)))
}

/// `POST /filters/delete`: deletes the one of this name, and stays at the filter.
pub(super) async fn delete(
    node: View,
    Extension(caller): Extension<Caller>,
    Filtered(filter): Filtered,
    Filled(form): Filled<Named>,
) -> Done {
    filters::deleted(&node, &caller, &form.name, String::new()).await?;
    Ok(Redirect::to(&format!("/operations?{}", filter.written())))
}
