//! Every command on the pages that show how something is done is typed here as it stands there.

use std::path::Path;

use crate::guides_world::{Deed, follow, page, steps};

macro_rules! pages {
    ($($name:ident $page:literal)*) => {
        /// Those that are followed.
        const PAGES: &[&str] = &[$($page),*];

        $(#[test]
        fn $name() {
            follow($page);
        })*
    };
}

pages! {
    the_readme "README.md"
    the_start "docs/start.md"
    the_concept_of_effects "docs/concepts/effects.md"
    the_concept_of_doubt "docs/concepts/in-doubt.md"
    the_concept_of_windows "docs/concepts/windows.md"
    the_concept_of_the_same_request "docs/concepts/same-request.md"
    the_patterns "docs/patterns.md"
    the_checklist "docs/checklist.md"
    the_guide_to_payments "docs/guides/payments.md"
    the_guide_to_webhooks_in "docs/guides/webhooks-in.md"
    the_guide_to_developing "docs/guides/develop.md"
    the_guide_to_webhooks_out "docs/guides/webhooks-out.md"
    the_guide_to_sagas "docs/guides/sagas.md"
    the_guide_to_mail "docs/guides/mail.md"
    the_guide_to_guards "docs/guides/guard.md"
    the_guide_to_outboxes "docs/guides/outbox.md"
    the_guide_to_inboxes "docs/guides/inbox.md"
    the_guide_to_agents "docs/guides/agents.md"
    the_guide_to_upgrades "docs/guides/upgrade.md"
    the_guide_to_backups "docs/guides/backup.md"
    the_guide_to_windows "docs/guides/window.md"
    the_guide_from_a_retry_loop "docs/guides/from-a-retry-loop.md"
    the_guide_from_svix "docs/guides/from-svix.md"
    the_guide_from_hookdeck "docs/guides/from-hookdeck.md"
    the_guide_from_qstash "docs/guides/from-qstash.md"
    the_guide_from_convoy "docs/guides/from-convoy.md"
}

/// What nobody but the reader has: a provider's key, a package manager, a service manager.
const BY_HAND_MAX: usize = 12;

#[test]
fn every_page_of_the_guides_and_concepts_is_followed() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for folder in ["guides", "concepts"] {
        for entry in std::fs::read_dir(docs.join(folder)).unwrap().flatten() {
            let name = format!("docs/{folder}/{}", entry.file_name().to_string_lossy());
            assert!(PAGES.contains(&name.as_str()), "{name} is followed by no test");
        }
    }
}

#[test]
fn few_blocks_are_left_to_be_typed_by_hand() {
    let by_hand = |path: &&&str| {
        let steps = steps(&page(path)).unwrap_or_else(|why| panic!("{path}, {why}"));
        steps.iter().filter(|step| step.deed == Deed::ByHand).count()
    };
    let all: usize = PAGES.iter().map(|path| by_hand(&path)).sum();
    assert!(all <= BY_HAND_MAX, "{all} blocks are typed by nobody");
}
