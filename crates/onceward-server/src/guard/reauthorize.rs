//! Whether a caller may have an answer from memory: the upstream is asked, with the caller's own
//! credentials, each time. A revoked credential gets its 401 and not what was kept.

use bytes::Bytes;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Response};
use onceward::core::exchange::{Request, is_credential};
use onceward::{Answer, Call, CallOptions};

use crate::body::{Body, headers_of};
use crate::config::Guard;
use crate::config::guard::{PrincipalRule, Reauthorize};
use crate::gateway::respond;
use crate::node::Node;
use crate::problem::Problem;

/// A question that is ready to be asked.
#[derive(Debug)]
pub(super) struct Asking {
    tenant: String,
    route: String,
    request: Request,
    said: HeaderMap,
}

impl Reauthorize {
    /// What is asked about the caller of `head`; `said` is what the upstream is told of its way.
    pub(super) fn of(&self, guard: &Guard, head: &Parts, said: &HeaderMap) -> Asking {
        let mut headers = headers_of(&head.headers);
        let is_credential = |name: &str| is_credential(name, &guard.sealed);
        let proves = |name: &str| match &guard.principal {
            // Whatever else the caller has may be good, too, and somebody else's.
            PrincipalRule::Bearer(_) => name == "authorization",
            PrincipalRule::Header(named) | PrincipalRule::Credential(named) => {
                name == named || is_credential(name)
            }
            _ => is_credential(name),
        };
        headers.0.retain(|(name, _)| proves(name) || name == "user-agent" || name == "origin");
        let mut said = said.clone();
        said.remove("prefer");
        let target = head.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        // What came on a request line can stand in a header.
        for (name, value) in
            [("x-forwarded-method", head.method.as_str()), ("x-forwarded-uri", target)]
        {
            if let Ok(value) = HeaderValue::from_str(value) {
                said.insert(name, value);
            }
        }
        let request = Request {
            method: "GET".to_owned(),
            target: self.get.clone(),
            headers,
            body: Bytes::new(),
        };
        let route = self.route.clone().unwrap_or_else(|| guard.route.clone());
        Asking { tenant: guard.tenant.clone(), route, request, said }
    }
}

impl Asking {
    /// Nothing where the caller may have it; what it is told where it may not.
    pub(super) async fn ask(
        self,
        node: &Node,
        principal: String,
    ) -> Result<Option<Response<Body>>, Problem> {
        let call = Call {
            tenant: self.tenant,
            principal,
            route: self.route,
            request: self.request,
            options: CallOptions { headers: self.said, ..CallOptions::default() },
        };
        let failed = |why: String| Problem::new("reauthorize-failed", why);
        match Box::pin(node.engine.call(call)).await {
            Ok(Answer::Passed { status: 200..=299, .. }) => Ok(None),
            Ok(answer @ Answer::Passed { status: 401 | 403, .. }) => {
                Ok(Some(respond(answer, None, true, &node.engine)))
            }
            Ok(Answer::Passed { status, .. }) => {
                Err(failed(format!("Whoever was asked answered {status}; ask again.")))
            }
            Ok(_) => Err(failed("It was asked in a way that makes a record.".to_owned())),
            Err(refusal) => {
                let problem = Problem::from(refusal);
                let detail = format!("{}: {}", problem.title(), problem.detail);
                let mut failed = failed(detail);
                failed.retry_after = problem.retry_after;
                Err(failed)
            }
        }
    }
}
