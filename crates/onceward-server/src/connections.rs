//! Connections of callers: how many there may be, on which thread each is, and how long it may take to
//! say what it wants.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::runtime::Handle;

/// How long the head of a request may take to arrive.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The connections that there are, on every listener.
#[derive(Debug)]
pub(crate) struct Connections {
    max: usize,
    of_address_max: usize,
    idle_timeout: Duration,
    event_loops: Vec<Handle>,
    count: Mutex<Count>,
}

/// How many there are.
#[derive(Debug)]
struct Count {
    of_address: HashMap<IpAddr, usize>,
    on_event_loop: Vec<usize>,
}

/// One connection, for as long as it lives.
pub(crate) struct Connected {
    among: Arc<Connections>,
    address: IpAddr,
    event_loop: usize,
}

impl Connections {
    /// None yet; so many at most, and each for so long where it carries nothing.
    pub(crate) fn new(
        max: usize,
        of_address_max: usize,
        idle_timeout: Duration,
        event_loops: Vec<Handle>,
    ) -> Arc<Self> {
        let on_event_loop = vec![0; event_loops.len()];
        let count = Mutex::new(Count { of_address: HashMap::new(), on_event_loop });
        Arc::new(Self { max, of_address_max, idle_timeout, event_loops, count })
    }

    /// Counts one more, where there may be one, on the event loop that has the fewest.
    pub(crate) fn begin(self: &Arc<Self>, address: IpAddr) -> Option<Connected> {
        let address = holder_of(address);
        let mut count = self.count();
        let of_address = count.of_address.get(&address).copied().unwrap_or_default();
        let all: usize = count.on_event_loop.iter().sum();
        if all >= self.max || of_address >= self.of_address_max {
            return None;
        }
        let (event_loop, on_it) =
            count.on_event_loop.iter_mut().enumerate().min_by_key(|(_, on_it)| **on_it)?;
        *on_it += 1;
        count.of_address.insert(address, of_address + 1);
        drop(count);
        Some(Connected { among: Arc::clone(self), address, event_loop })
    }

    fn count(&self) -> MutexGuard<'_, Count> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connected {
    /// Where whatever concerns it runs.
    pub(crate) fn event_loop(&self) -> Handle {
        self.among.event_loops[self.event_loop].clone()
    }

    /// How long it may stand where it carries nothing.
    pub(crate) fn idle_timeout(&self) -> Duration {
        self.among.idle_timeout
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut count = self.among.count();
        count.on_event_loop[self.event_loop] -= 1;
        let left = count.of_address.get(&self.address).map_or(0, |left| left - 1);
        if left == 0 {
            count.of_address.remove(&self.address);
        } else {
            count.of_address.insert(self.address, left);
        }
    }
}

/// Whom an address belongs to: whoever has one of IPv6 has a whole /64 of them.
pub(crate) fn holder_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Whoever speaks HTTP/1.1 or HTTP/2 on one connection, within limits.
pub(crate) fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(HeadTimer::default())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(64 << 10);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(32 << 10);
    builder
}

/// Times the heads of a connection, one after the other, by one timer: where it is set for an earlier
/// one it goes off in vain, which costs less than to set it for each.
#[derive(Debug, Default)]
struct HeadTimer(SharedTimer);

type SharedTimer = Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>;

/// The time of one head.
#[derive(Debug)]
struct HeadDue {
    timer: SharedTimer,
    due: Instant,
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, due: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadDue { timer: Arc::clone(&self.0), due })
    }
}

impl Future for HeadDue {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
        let due = self.due.into();
        let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due);
        }
        Poll::Pending
    }
}

impl Sleep for HeadDue {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[tokio::test]
    async fn a_connection_goes_to_the_event_loop_that_has_the_fewest() {
        let connections = Connections::new(10, 10, HEAD_TIMEOUT, vec![Handle::current(); 2]);
        let begin = || connections.begin(ADDRESS).expect("there is room");
        let at = |connected: &[Connected]| -> Vec<_> {
            connected.iter().map(|connected| connected.event_loop).collect()
        };
        let mut all = vec![begin(), begin(), begin()];
        assert_eq!(at(&all), [0, 1, 0]);
        all.retain(|connected| connected.event_loop == 1);
        all.extend([begin(), begin()]);
        assert_eq!(at(&all), [1, 0, 0]);
    }

    #[tokio::test]
    async fn no_more_connections_stand_than_may_in_all_and_of_an_address() {
        let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
        let connections = Connections::new(3, 2, HEAD_TIMEOUT, vec![Handle::current(); 2]);
        let mut all: Vec<_> = (0..3).filter_map(|_| connections.begin(ADDRESS)).collect();
        assert_eq!(all.len(), 2, "of the address");
        all.extend((0..2).filter_map(|_| connections.begin(other)));
        assert_eq!(all.len(), 3, "in all");
        all.clear();
        let of_one = ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3"].map(str::parse);
        all.extend(of_one.into_iter().filter_map(|it| connections.begin(it.expect("an address"))));
        assert_eq!(all.len(), 2, "of a network that one has");
        all.extend("2001:db8:0:1::1".parse().ok().and_then(|it| connections.begin(it)));
        assert_eq!(all.len(), 3);
        all.clear();
        assert!(connections.begin(ADDRESS).is_some());
        assert!(connections.count().of_address.is_empty(), "an address that is gone is forgotten");
    }
}
