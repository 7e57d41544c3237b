//! An upstream that does as it is told.

use std::io::{BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use super::read_head;

/// An upstream: it counts its calls, and answers each with the status that holds then.
#[derive(Clone)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Arc<(Mutex<UpstreamState>, Condvar)>,
}

struct UpstreamState {
    calls: usize,
    /// The credential of the last call.
    authorization: Option<String>,
    /// Without one, callers wait.
    status: Option<u16>,
}

impl Upstream {
    pub(crate) fn answering(status: Option<u16>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new((
            Mutex::new(UpstreamState { calls: 0, authorization: None, status }),
            Condvar::new(),
        ));
        let upstream = Self { address, state };
        let answers = upstream.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let answers = answers.clone();
                // A caller that goes away is no matter of the upstream's.
                std::thread::spawn(move || drop(answers.answer(stream)));
            }
        });
        upstream
    }

    pub(crate) fn set(&self, status: u16) {
        self.state.0.lock().unwrap().status = Some(status);
        self.state.1.notify_all();
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.0.lock().unwrap().calls
    }

    /// The credential of the last call.
    pub(crate) fn authorization(&self) -> Option<String> {
        self.state.0.lock().unwrap().authorization.clone()
    }

    fn answer(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let (_, headers) = read_head(&mut reader)?;
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length = length.and_then(|(_, value)| value.parse().ok()).unwrap_or(0);
        reader.read_exact(&mut vec![0; length])?;
        let mut state = self.state.0.lock().unwrap();
        state.calls += 1;
        let authorization = headers.iter().find(|(name, _)| name == "authorization");
        state.authorization = authorization.map(|(_, value)| value.clone());
        let state = self.state.1.wait_while(state, |state| state.status.is_none()).unwrap();
        let status = state.status.unwrap_or(500);
        drop(state);
        let answer = format!(
            "HTTP/1.1 {status} As Told\r\nconnection: close\r\ncontent-length: 4\r\n\r\ndone"
        );
        reader.into_inner().write_all(answer.as_bytes())
    }
}
