//! Logging in and out, and the sessions that there are.

use std::net::IpAddr;
use std::sync::PoisonError;
use std::time::Instant;

use onceward::core::time::Timestamp;
use onceward::secret::is_same;
use onceward::store::StoreError;

use super::key::{hash, prefix};
use super::session::{By, Session};
use super::{Access, Caller, Roles};
use crate::problem::Problem;
use crate::shape;

/// A session that was begun.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its cookie, shown this once.
    pub(crate) token: String,
    pub(crate) session: Session,
}

/// A session that goes on.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) session: Session,
    pub(crate) who: String,
    pub(crate) roles: Roles,
    pub(crate) used: Timestamp,
    pub(crate) ends: Timestamp,
}

impl Access {
    /// By which key somebody logs in, and who that is.
    pub(crate) fn recognise(&self, key: &str) -> Result<(By, Caller), Problem> {
        let caller = self.caller(key)?;
        let looks = [Roles::READ, Roles::PAYLOADS, Roles::OPERATE, Roles::ADMIN];
        if !looks.iter().any(|role| caller.roles.has(*role)) {
            let why = "This access key only sends: it opens no page.";
            return Err(Problem::new("forbidden", why));
        }
        let hash = hash(key);
        let by = if is_same(hash.as_bytes(), self.operator.as_bytes()) {
            By::Operator { key_hash: hash }
        } else {
            By::Key { prefix: prefix(key) }
        };
        Ok((by, caller))
    }

    /// Begins a session, in the place of the one that this browser had.
    pub(crate) async fn log_in(
        &self,
        by: By,
        from: IpAddr,
        before: Option<&str>,
    ) -> Result<Opened, StoreError> {
        // What is read of the sessions meanwhile must not undo this.
        let _alone = self.changing.lock().await;
        if let Some(token) = before {
            self.leave(token).await?;
        }
        let (token, session) = self.sessions.begin(by, from, shape::now()).await?;
        Ok(Opened { token, session })
    }

    /// Ends the session that this cookie is of.
    pub(crate) async fn log_out(&self, token: &str) -> Result<(), StoreError> {
        let _alone = self.changing.lock().await;
        self.leave(token).await
    }

    async fn leave(&self, token: &str) -> Result<(), StoreError> {
        if let Some(open) = self.sessions.of(token, shape::now()) {
            let id = open.session.id();
            self.sessions.end_where(|session| session.id() == id).await?;
        }
        Ok(())
    }

    /// Whether this cookie is of a session that goes on, by the ledger's own word.
    pub(crate) async fn is_logged_in(&self, token: &str) -> Result<bool, StoreError> {
        if self.visitor(token, false).is_none() {
            self.sessions.look_for(token).await?;
        }
        Ok(self.visitor(token, false).is_some())
    }

    /// All sessions, the newest first.
    pub(crate) fn sessions(&self) -> Vec<Standing> {
        let standing = self.sessions.list(shape::now()).into_iter().filter_map(|open| {
            let caller = self.caller_by(&open.session.by)?;
            Some(Standing {
                session: open.session.clone(),
                who: caller.who(),
                roles: caller.roles,
                used: open.used(),
                ends: open.ends(),
            })
        });
        standing.collect()
    }

    /// Ends the session of this id; tells whether there was one.
    pub(crate) async fn end_session(&self, id: &str) -> Result<bool, StoreError> {
        let _alone = self.changing.lock().await;
        Ok(self.sessions.end_where(|session| session.id() == id).await? > 0)
    }

    /// Counts a try to log in.
    pub(crate) fn may_try(&self, address: IpAddr) -> Result<(), Problem> {
        self.tries.begin(address, Instant::now()).map_err(|wait| {
            let why = "Too many tries to log in from there; wait a little.";
            onceward::problem::Problem::new("limit", why).status(429).retry_after(wait).into()
        })
    }

    /// The last try was no failure.
    pub(crate) fn tried_well(&self, address: IpAddr) {
        self.tries.succeeded(address);
    }

    /// Whether the audit takes this failure; with how many that it did not take since the last.
    pub(crate) fn notes_failure(&self) -> Option<u64> {
        self.tries.note(Instant::now())
    }

    /// What a session may do now: that of its key, as long as the key holds.
    pub(super) fn caller_by(&self, by: &By) -> Option<Caller> {
        match by {
            By::Operator { key_hash } => {
                is_same(key_hash.as_bytes(), self.operator.as_bytes()).then(Caller::local)
            }
            By::Key { prefix } => {
                let by_hash = self.by_hash.read().unwrap_or_else(PoisonError::into_inner);
                let known = by_hash.values().find(|known| known.key.prefix == *prefix)?;
                known.caller(shape::now()).ok()
            }
            // No key's name has a colon.
            By::Provider { name, roles, .. } => {
                Some(Caller { principal: format!("oidc:{name}"), roles: *roles, ..Caller::local() })
            }
        }
    }
}
