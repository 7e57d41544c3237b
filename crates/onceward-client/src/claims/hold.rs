//! A claim in hand: its lease is renewed until it is let go.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Claims;
use crate::error::Error;
use crate::shapes::Claim;
use crate::units::read_rfc3339;

/// What an effect is told.
#[derive(Debug, Clone)]
pub struct Held {
    /// The claim's key.
    pub key: String,
    /// Grows with each holder: let what is written to refuse a smaller one.
    pub fence: u64,
    /// The operation's id: a good key for what is called from here.
    pub operation: String,
    lost: watch::Receiver<bool>,
}

impl Held {
    /// Whether the claim is lost, or its lease is over and could not be renewed: somebody else may have
    /// begun since.
    pub fn is_lost(&self) -> bool {
        *self.lost.borrow()
    }

    /// Ends where the claim is lost, and else never.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        if lost.wait_for(|is_lost| *is_lost).await.is_err() {
            pending::<()>().await;
        }
    }
}

/// A claim, and for how long it is in hand from its asking on. Its lease began when the gateway wrote
/// it, which no answer tells: no earlier than it was asked.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) claim: Claim,
    pub(crate) lease: Duration,
    /// When it was asked first.
    pub(crate) asked: Instant,
}

impl Granted {
    /// Whether so much of its lease may be over that it is to be renewed.
    pub(super) fn is_late(&self) -> bool {
        self.asked.elapsed() > self.lease / 3
    }
}

/// For how long `claim` is in hand: what was asked, unless its answer says less. By the clock of
/// whoever answered, which need not be ours; it says whole seconds, so that up to one of what it seems to
/// say is over already.
pub(super) fn granted(claim: &Claim, date: Option<&str>, asked: Duration) -> Duration {
    let until = claim.lease_until.as_deref().and_then(read_rfc3339);
    let at = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let (Some(until), Some(at)) = (until, at) else { return asked };
    let said = until.duration_since(at).unwrap_or_default();
    said.saturating_sub(Duration::from_secs(1)).max(said / 2).min(asked)
}

/// Renewals come no closer together than this, whatever the lease.
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// No lease is counted as longer, in this process.
const LEASE_MAX: Duration = Duration::from_hours(24);

/// Renews a claim at a third of its lease, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    held: Held,
    renewing: JoinHandle<()>,
}

impl Hold {
    /// Holds it for `longest` at most: from then on its lease ends by itself, whatever its holder does.
    pub(crate) fn new(claims: Claims, granted: Granted, longest: Duration) -> Self {
        let (losing, lost) = watch::channel(false);
        let Granted { claim: Claim { key, operation, fence, .. }, lease, asked } = granted;
        let held = Held { key, fence: fence.unwrap_or_default(), operation, lost };
        let (key, fence) = (held.key.clone(), held.fence);
        // Beside the effect, which may keep its own task busy.
        let renewing = tokio::spawn(async move {
            if renewed(&claims, &key, fence, (asked, lease), longest).await.is_err() {
                losing.send_replace(true);
            }
        });
        Self { held, renewing }
    }

    pub(crate) fn held(&self) -> Held {
        self.held.clone()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

/// Renews a claim for so long; fails where it is lost.
async fn renewed(
    claims: &Claims,
    key: &str,
    fence: u64,
    (asked, lease): (Instant, Duration),
    longest: Duration,
) -> Result<(), Lost> {
    let begun = Instant::now();
    let mut lease = lease.min(LEASE_MAX);
    let mut until = asked + lease;
    while begun.elapsed() < longest {
        let left = until.saturating_duration_since(Instant::now());
        tokio::time::sleep((lease / 3).max(PAUSE_MIN).min(left)).await;
        // A renewal that hangs is worth no more than the lease that it is to renew.
        match tokio::time::timeout_at(until, claims.renew_for(key, fence)).await {
            Ok(Ok(granted)) => {
                lease = granted.lease.min(LEASE_MAX);
                until = granted.asked + lease;
            }
            Ok(Err(error)) if is_final(&error) => return Err(Lost),
            // It was asked several times over; the next third is another chance.
            Ok(Err(_)) if Instant::now() < until => {}
            Ok(Err(_)) | Err(_) => return Err(Lost),
        }
    }
    Ok(())
}

struct Lost;

/// Whether a claim that is refused so is not ours any more.
fn is_final(error: &Error) -> bool {
    let status = error.refusal().map(|refusal| refusal.problem().status);
    matches!(error, Error::FenceStale(_)) || matches!(status, Some(403 | 404 | 410))
}
