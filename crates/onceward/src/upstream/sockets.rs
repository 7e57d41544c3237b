//! Mails to places of the operator's that are no upstreams: the same doorway, so that the same
//! places are open, and the same dialogue.

use std::path::Path;

use tokio::time::Instant;

use super::Target;
use super::connect::Connector;
use super::egress::Egress;
use super::progress::Progress;
use super::smtp::dialogue::{Letter, hand_over};
use super::smtp::{Handed, MailServer, SmtpError};
use super::tls::{self, DoorError};

/// Opens sockets for what is no attempt of an operation.
#[derive(Debug)]
pub struct Sockets(Connector);

impl Sockets {
    /// Trusts the machine's roots, or Mozilla's where it has none, and those in `ca_file`; reads their files.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, DoorError> {
        Ok(Self(Connector::with_tls(Egress::default(), tls::trusted(ca_file)?)))
    }

    /// Hands the mail `message` over to the server at `target`, from one address to others, as far as
    /// an operator's name may lead there.
    pub async fn hand_over(
        &self,
        target: &Target,
        server: &MailServer,
        (from, to): (&str, &[&str]),
        message: &[u8],
    ) -> Result<Handed, SmtpError> {
        let mut progress = Progress::begin(Instant::now());
        let letter = Letter { from, to, message };
        let told = hand_over(&self.0, target, server, Some(letter), &mut progress).await;
        told.map(Handed::of).map_err(SmtpError::of)
    }
}
