//! What a list lets a person do to many: to the rows that they select, or to all that match. Either leads to a
//! plan first, and needs no script.

use maud::{Markup, html};
use onceward::BulkOrder;

use super::super::viewer;
use crate::access::Roles;
use crate::operator::Filter;
use crate::view::View;

/// The form above a list, to which the boxes in its rows belong.
pub(in crate::page) const FORM: &str = "many";

/// The name of these boxes.
pub(in crate::page) const BOX: &str = "op";

/// What is done to many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::page) enum Act {
    Redeliver,
    Retry,
    Cancel,
    Resolve,
}

impl Act {
    const ALL: [Self; 4] = [Self::Redeliver, Self::Retry, Self::Cancel, Self::Resolve];

    /// The one that the API has this name for.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|act| act.name() == name)
    }

    /// Its name in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Redeliver => "redeliver",
            Self::Retry => "retry",
            Self::Cancel => "cancel",
            Self::Resolve => "resolve",
        }
    }

    /// The word on its button.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Redeliver => "Redeliver",
            Self::Retry => "Try now",
            Self::Cancel => "Cancel",
            Self::Resolve => "Resolve",
        }
    }

    /// The same for all that match.
    pub(super) fn all(self) -> &'static str {
        match self {
            Self::Redeliver => "Redeliver all that match",
            Self::Retry => "Try all that match now",
            Self::Cancel => "Cancel all that match",
            Self::Resolve => "Resolve all that match",
        }
    }

    /// The same for those that were selected.
    pub(super) fn selected(self) -> &'static str {
        match self {
            Self::Redeliver => "Redeliver what was selected",
            Self::Retry => "Try what was selected now",
            Self::Cancel => "Cancel what was selected",
            Self::Resolve => "Resolve what was selected",
        }
    }

    /// Where an operation stands that it can be done to.
    pub(super) fn fits(self) -> &'static str {
        match self {
            Self::Redeliver => "dead or in doubt, with its request kept",
            Self::Retry => "waiting for its next attempt",
            Self::Cancel => "pending",
            Self::Resolve => "in doubt",
        }
    }

    /// What can be done to operations in this state, the likeliest first.
    pub(super) fn for_state(state: Option<&str>) -> &'static [Self] {
        match state.unwrap_or_default() {
            "" => &Self::ALL,
            "pending" => &[Self::Retry, Self::Cancel],
            "in_doubt" => &[Self::Resolve, Self::Redeliver],
            "dead" | "dead_letter" => &[Self::Redeliver],
            _ => &[],
        }
    }

    /// Where it is planned or begun for the operations that `filter`, written, finds.
    pub(super) fn place(self, path: &str, filter: &str) -> String {
        match (self, filter) {
            (Self::Redeliver, "") => path.to_owned(),
            (Self::Redeliver, filter) => format!("{path}?{filter}"),
            (act, "") => format!("{path}?action={}", act.name()),
            (act, filter) => format!("{path}?action={}&{filter}", act.name()),
        }
    }
}

/// What whoever looks may do to many of what this filter finds.
pub(in crate::page) fn acts(node: &View, filter: &Filter) -> &'static [Act] {
    if node.may(Roles::OPERATE) { Act::for_state(filter.state.as_deref()) } else { &[] }
}

/// The form above a list. Where scripts run it counts what is selected; else the boxes say it. Above one that has no
/// boxes, for it is too long, it says that.
pub(in crate::page) fn bar(acts: &[Act], filter: &Filter, has_boxes: bool) -> Markup {
    let Some(first) = acts.first() else { return html! {} };
    if !has_boxes {
        return html! {
            p.soft.small {
                "Rows can be selected where a page has at most " (BulkOrder::SELECTED_MAX) " of them. "
                @if filter.is_set() { a href=(first.place("/bulk/plan", &filter.written())) { (first.all()) } }
            }
        };
    }
    html! {
        form.many id=(FORM) method="post" action=(first.place("/bulk/plan", "")) aria-label="What is selected" {
            (viewer::token())
            label.choice.scripted-only { input type="checkbox" data-all autocomplete="off"; " All of this page" }
            output { "Those selected:" }
            span.does {
                @for act in acts { button.quiet formaction=(act.place("/bulk/plan", "")) { (act.word()) } }
            }
            @if filter.is_set() {
                a.quiet.whole href=(first.place("/bulk/plan", &filter.written())) { (first.all()) }
            }
        }
    }
}
