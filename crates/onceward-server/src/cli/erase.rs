//! `erase`: somebody's data goes from the ledger for good; a mark stays.

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::client::Client;
use super::output::{Printer, Sure, each, print, say, text};
use crate::exit::Exit;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true))]
pub(super) struct Erase {
    /// All that is about this subject
    #[arg(long, group = "whose", value_name = "NAME")]
    subject: Option<String>,
    /// All that was sent with this access key, by its name
    #[arg(long, group = "whose", value_name = "NAME")]
    principal: Option<String>,
    /// The operation of one key: its route, and the key
    #[arg(long, group = "whose", num_args = 2, value_names = ["ROUTE", "KEY"])]
    key: Option<Vec<String>>,
    /// A saga, by its id, with what its steps asked and were answered
    #[arg(long, group = "whose", value_name = "ID")]
    saga: Option<String>,
    /// With --key: the name of the access key that it was sent with
    #[arg(long, value_name = "NAME", requires = "key")]
    of: Option<String>,
    /// Only count
    #[arg(long, alias = "plan")]
    dry_run: bool,
    #[command(flatten)]
    sure: Sure,
    /// Give up what waits, and erase it too
    #[arg(long)]
    cancel: bool,
    /// Why: it stays with the marks and in the audit
    #[arg(long, required_unless_present = "dry_run")]
    reason: Option<String>,
}

pub(super) async fn erase(flags: &Erase, client: &Client, out: Printer) -> Result<(), Exit> {
    let named = |place: usize| flags.key.as_ref().and_then(|key| key.get(place));
    let document = json!({
        "subject": flags.subject,
        "principal": flags.principal.as_ref().or(flags.of.as_ref()),
        "route": named(0),
        "key": named(1),
        "saga": flags.saga,
        "dry_run": flags.dry_run,
        "cancel": flags.cancel,
        "reason": flags.reason.as_deref().unwrap_or_default(),
    });
    if !flags.dry_run {
        let tell = |planned: &Value| {
            say(&format!("{} would be erased, for good", planned["operations"]));
            if flags.cancel {
                say("what of these waits to be sent is given up");
            }
            if planned["open_count"] != 0 {
                let open = &planned["open_count"];
                say(&format!("{open} have not ended and would stay as they are"));
            }
        };
        flags.sure.go_on(client, "/v1/erase", &document, tell).await?;
    }
    let done = client.post("/v1/erase", &document).await?;
    out.document(&done, || {
        let did = if flags.dry_run { "would be erased" } else { "erased" };
        print(&format!("{}\t{did}", done["operations"]))?;
        if done["open_count"] != 0 {
            say(&format!("{} have not ended and stay as they are:", done["open_count"]));
        }
        for id in each(&done, "/open") {
            say(&text(id, ""));
        }
        Ok(())
    })
}
