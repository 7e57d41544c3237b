//! Sockets that listened before this process did, passed by whoever started it (`LISTEN_FDS`): while a
//! gateway is started again its callers wait in their queues, and none is refused.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{LazyLock, Mutex, PoisonError};

use listenfd::ListenFd;
use tracing::{info, warn};

/// Those that nobody has taken yet. Descriptors are the process's, so this is, too.
static PASSED: LazyLock<Mutex<Vec<TcpListener>>> = LazyLock::new(|| Mutex::new(all()));

fn all() -> Vec<TcpListener> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..passed.len() {
        match passed.take_tcp_listener(number) {
            Ok(socket) => sockets.extend(socket),
            Err(error) => warn!(%error, "a passed descriptor is none that callers come by"),
        }
    }
    sockets
}

/// Listens on `address`: by the socket that was passed for it, else by one of its own.
pub(crate) async fn listen(address: SocketAddr) -> io::Result<tokio::net::TcpListener> {
    let Some(socket) = take(address) else {
        return tokio::net::TcpListener::bind(address).await;
    };
    info!(%address, "listens by a socket that was passed");
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket)
}

fn take(address: SocketAddr) -> Option<TcpListener> {
    let mut passed = PASSED.lock().unwrap_or_else(PoisonError::into_inner);
    let is_it =
        |socket: &TcpListener| socket.local_addr().is_ok_and(|listens| is_same(listens, address));
    let found = passed.iter().position(is_it)?;
    Some(passed.swap_remove(found))
}

/// Systemd's `ListenStream=7077` is `[::]`, where IPv4 comes in as well.
fn is_same(listens: SocketAddr, wanted: SocketAddr) -> bool {
    let is_any = listens.ip().is_unspecified() && wanted.ip().is_unspecified();
    listens == wanted || (is_any && listens.port() == wanted.port())
}

/// Says what was passed in vain: callers who come by it wait for ever.
pub(crate) fn tell_of_rest() {
    for socket in PASSED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let address = socket.local_addr().map_or_else(|_| "?".to_owned(), |at| at.to_string());
        warn!(address, "a socket was passed that no `listen` names: nobody is answered there");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_taken_for_its_own_address_or_for_any() {
        let same = |listens: &str, wanted: &str| {
            is_same(listens.parse().unwrap(), wanted.parse().unwrap())
        };
        assert!(same("127.0.0.1:7077", "127.0.0.1:7077"));
        assert!(same("[::]:7077", "0.0.0.0:7077"));
        assert!(!same("[::]:7077", "0.0.0.0:7078"));
        assert!(!same("[::]:7077", "127.0.0.1:7077"));
        assert!(!same("127.0.0.1:7077", "127.0.0.2:7077"));
    }
}
