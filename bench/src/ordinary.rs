//! A reverse proxy as most are written with the same libraries: hyper-util's pooled client, and the lines by
//! which a proxy says that it stood between.
//!
//! Beside the bare one it does what RFC 9110 (7.6.3) asks of every proxy, `Via` both ways, and what an upstream
//! wants to know, `X-Forwarded-…`. It has no limits, no timeouts and no retries either.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, VIA};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::Outcome;
use crate::proxy::{serve, strip};

const NAME: HeaderValue = HeaderValue::from_static("1.1 ordinary");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

struct Proxy {
    client: Client<HttpConnector, Incoming>,
    sink: Authority,
}

/// Serves until standard input ends.
pub(crate) fn run(sink: SocketAddr) -> Outcome<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let proxy = Arc::new(Proxy { client, sink: sink.to_string().parse()? });
    serve(move |request, from| {
        let proxy = Arc::clone(&proxy);
        async move { proxy.forward(request, from).await }
    })
}

type Answer = Response<Either<Incoming, Empty<Bytes>>>;

impl Proxy {
    async fn forward(
        &self,
        mut request: Request<Incoming>,
        from: IpAddr,
    ) -> Result<Answer, Infallible> {
        strip(request.headers_mut());
        say(request.headers_mut(), from);
        *request.uri_mut() = self.there(request.uri());
        let Ok(mut response) = self.client.request(request).await else {
            let mut response = Response::new(Either::Right(Empty::new()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            return Ok(response);
        };
        strip(response.headers_mut());
        response.headers_mut().append(VIA, NAME);
        Ok(response.map(Either::Left))
    }

    /// The same path at the sink.
    fn there(&self, uri: &Uri) -> Uri {
        let mut parts = uri.clone().into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.sink.clone());
        Uri::from_parts(parts).unwrap_or_default()
    }
}

/// Whose request it is, and who stands between.
fn say(headers: &mut HeaderMap, from: IpAddr) {
    headers.append(VIA, NAME);
    if let Some(host) = headers.get(HOST).cloned() {
        headers.insert(FORWARDED_HOST, host);
    }
    if let Ok(from) = HeaderValue::from_str(&from.to_string()) {
        headers.append(FORWARDED_FOR, from);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
}
