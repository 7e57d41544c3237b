//! Tower layers for one's own HTTP client, where no gateway stands before the upstream: retries that
//! never risk a second effect ([`RetryLayer`]), and a breaker ([`BreakerLayer`]).
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use onceward::client::{BreakerLayer, Failed, RetryLayer};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! // Any client that is a tower service: this one always works.
//! let client = service_fn(async |request: Request<Full<Bytes>>| {
//!     assert!(request.headers().contains_key("idempotency-key"));
//!     Ok::<_, std::io::Error>(Response::new(Full::<Bytes>::default()))
//! });
//! let mut client = ServiceBuilder::new()
//!     .layer(RetryLayer::new())
//!     .layer(BreakerLayer::new().errors(|error: &std::io::Error| match error.kind() {
//!         std::io::ErrorKind::ConnectionRefused => Failed::Unsent,
//!         _ => Failed::Unanswered,
//!     }))
//!     .service(client);
//! let order = Request::post("https://pay.example.com/charges").body(Full::from("{}"))?;
//! let response = client.ready().await?.call(order).await?;
//! assert!(response.status().is_success());
//! # Ok(())
//! # }
//! ```
//!
//! These layers remember nothing beyond the call: what has to be sent although the process dies goes
//! through the gateway, or is remembered first.

mod breaker;
mod retry;

use std::any::Any;
use std::error::Error;

use onceward_core::attempt::Ending;

pub use breaker::{BreakerError, BreakerLayer, BreakerService, Probes};
pub use retry::{RetryLayer, RetryService};

/// An error of a service that is not ours.
type BoxError = Box<dyn Error + Send + Sync>;

/// What an error of a client says of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// Provably nothing was sent: a connection that could not be opened.
    Unsent,
    /// It may have arrived.
    Unanswered,
    /// Nothing was sent, and asking again now does not help: a breaker is open, an address is none.
    Hopeless,
}

impl Failed {
    fn ending(self) -> Ending {
        match self {
            Self::Unsent | Self::Hopeless => Ending::Unsent,
            Self::Unanswered => Ending::Unanswered,
        }
    }
}

/// Reads the errors of a client. A function of an error is one; [`Careful`] is
/// where none is given.
pub trait ReadError<E>: Send + Sync + 'static {
    /// What `error` says of the request. Whoever is not sure says [`Failed::Unanswered`].
    fn read(&self, error: &E) -> Failed;
}

impl<E, F> ReadError<E> for F
where
    F: Fn(&E) -> Failed + Send + Sync + 'static,
{
    fn read(&self, error: &E) -> Failed {
        self(error)
    }
}

/// The reader without which nobody said otherwise: every error is taken for [`Failed::Unanswered`],
/// but that of a [`BreakerLayer`] behind, which says what that one's own reader said.
#[derive(Debug, Clone, Copy, Default)]
pub struct Careful;

impl<E: 'static> ReadError<E> for Careful {
    fn read(&self, error: &E) -> Failed {
        let error: &dyn Any = error;
        let boxed = || error.downcast_ref::<BoxError>()?.downcast_ref::<BreakerError>();
        let known = error.downcast_ref::<BreakerError>().or_else(boxed);
        known.map_or(Failed::Unanswered, BreakerError::failed)
    }
}
