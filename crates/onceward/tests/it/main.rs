//! What the library promises, over real sockets.

mod misbehave;
mod upstream_egress;
mod upstream_endings;
mod upstream_http2;
mod upstream_tls;
