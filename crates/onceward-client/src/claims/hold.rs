//! A claim in hand: its lease is renewed until it is let go.

use std::future::pending;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Claims;
use crate::error::Error;
use crate::shapes::Claim;

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
    /// Whether the claim is lost: somebody else may have begun since.
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

/// Renews a claim at a third of its lease, until it is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    held: Held,
    renewing: JoinHandle<()>,
}

impl Hold {
    /// Holds it for `longest` at most: from then on its lease ends by itself, whatever its holder does.
    pub(crate) fn new(claims: Claims, claim: Claim, longest: Duration) -> Self {
        let (losing, lost) = watch::channel(false);
        let Claim { key, operation, fence, .. } = claim;
        let held = Held { key, fence: fence.unwrap_or_default(), operation, lost };
        let (key, fence) = (held.key.clone(), held.fence);
        // Beside the effect, which may keep its own task busy.
        let begun = Instant::now();
        let renewing = tokio::spawn(async move {
            while begun.elapsed() < longest {
                tokio::time::sleep(claims.lease / 3).await;
                // What else goes wrong was asked several times over; the next third is another chance.
                if let Err(Error::FenceStale(_)) = claims.renew(&key, fence).await {
                    losing.send_replace(true);
                    return;
                }
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
