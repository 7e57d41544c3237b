//! The icons of the pages: our own drawings, on a field of 16 by 16.

use maud::{Markup, PreEscaped};

/// What an icon says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Icon {
    Overview,
    Alerts,
    Operations,
    Dead,
    Doubt,
    Sagas,
    Upstreams,
    Sources,
    Outboxes,
    Events,
    Subscriptions,
    Keys,
    Duplicates,
    Audit,
    Docs,
    Menu,
    Done,
    Pending,
    Delivering,
    Warning,
    Gone,
    Paused,
    Open,
    HalfOpen,
}

impl Icon {
    /// The drawing; a state has a ring around it.
    fn drawing(self) -> (bool, &'static str) {
        match self {
            Self::Overview => (false, r#"<path d="M2.5 13.5h11M4 11V8.5M8 11V3M12 11V6"/>"#),
            Self::Alerts => {
                (false, r#"<path d="M4 11V7.5a4 4 0 0 1 8 0V11l1.2 1.5H2.8zM6.8 14.2h2.4"/>"#)
            }
            Self::Operations => {
                (false, r#"<path d="M2.5 4h.1M5.5 4h8M2.5 8h.1M5.5 8h8M2.5 12h.1M5.5 12h8"/>"#)
            }
            Self::Dead => (true, r#"<path d="m5.8 5.8 4.4 4.4m0-4.4-4.4 4.4"/>"#),
            Self::Doubt => {
                (true, r#"<path d="M6.2 6.4a1.8 1.8 0 1 1 2.6 1.6c-.6.3-.8.6-.8 1.2M8 11.4v.1"/>"#)
            }
            Self::Sagas => (
                false,
                r#"<path d="M3 3.5h7.5a2.5 2.5 0 0 1 0 5h-5a2.5 2.5 0 0 0 0 5H13m-2-2 2 2-2 2"/>"#,
            ),
            Self::Upstreams => (false, r#"<path d="M3 13.5h10M8 11V2.5M4.5 6 8 2.5 11.5 6"/>"#),
            Self::Sources => (false, r#"<path d="M3 13.5h10M8 2.5V11M4.5 7.5 8 11l3.5-3.5"/>"#),
            Self::Outboxes => (false, r#"<path d="M2.5 3.5h11v9h-11zM2.5 6.5h11M6 6.5v6"/>"#),
            Self::Events => (false, r#"<path d="M9 2 4 9h4l-1 5 5-7H8z"/>"#),
            Self::Subscriptions => (
                false,
                r#"<path d="M3 13.5a1 1 0 1 0 0-.1M3 8a5.5 5.5 0 0 1 5.5 5.5M3 3.5a10 10 0 0 1 10 10"/>"#,
            ),
            Self::Keys => (
                false,
                r#"<circle cx="5" cy="11" r="2.5"/><path d="M6.8 9.2 13 3m-2.5 2.5L12.5 7.5"/>"#,
            ),
            Self::Duplicates => (false, r#"<path d="M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3"/>"#),
            Self::Audit => (false, r#"<path d="M4 2.5h8v11H4zM6.2 6h3.6M6.2 9h3.6"/>"#),
            Self::Docs => (false, r#"<path d="M5.5 4.5 2 8l3.5 3.5M10.5 4.5 14 8l-3.5 3.5"/>"#),
            Self::Menu => (false, r#"<path d="M2.5 4h11M2.5 8h11M2.5 12h11"/>"#),
            Self::Done => (true, r#"<path d="m5.2 8.2 2 2 3.6-4"/>"#),
            Self::Pending => (true, r#"<path d="M8 4.6V8l2.2 1.6"/>"#),
            Self::Delivering => (true, r#"<path d="M5 8h6M8.7 5.6 11.1 8l-2.4 2.4"/>"#),
            Self::Warning => (true, r#"<path d="M8 4.6v4M8 11.3v.1"/>"#),
            Self::Gone => (true, r#"<path d="M5.4 8h5.2"/>"#),
            Self::Paused => (true, r#"<path d="M6.4 5.6v4.8M9.6 5.6v4.8"/>"#),
            Self::Open => (false, r#"<path d="M1.5 8H5l4-4M11.5 8h3M5 8v.1"/>"#),
            Self::HalfOpen => (false, r#"<path d="M1.5 8H5l5-2M11.5 8h3M5 8v.1"/>"#),
        }
    }

    /// The icon, which says nothing to who cannot see it: a word stands beside it.
    pub(super) fn show(self) -> Markup {
        let (has_ring, drawing) = self.drawing();
        let ring = if has_ring { r#"<circle cx="8" cy="8" r="6.6"/>"# } else { "" };
        // Our own drawings, so they need no escaping.
        PreEscaped(format!(
            r#"<svg class="icon" viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">{ring}{drawing}</svg>"#
        ))
    }
}
