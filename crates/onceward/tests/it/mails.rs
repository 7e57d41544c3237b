//! Mails as the engine reads them; what becomes of them at a server is told by the gateway's own tests.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use onceward::core::policy::Policy;
use onceward::upstream::{MailServer, Safe, Target};
use onceward::{Answer, Refusal};
use serde_json::json;

use crate::world::{PAY, World, post, refused, route, routes};

#[tokio::test]
async fn a_large_mail_is_rendered_beside_whoever_polls_its_call() {
    let mut to_a_server = route(PAY, &Policy::default());
    let server = MailServer { safe: Safe::Not, login: None };
    let target = (*to_a_server.target).clone();
    to_a_server.target = Arc::new(Target { mail: Some(Arc::new(server)), ..target });
    let world = World::in_memory(routes([to_a_server]));
    for (bytes, is_at_once) in [(100, true), (1 << 19, false)] {
        let mut call = post("k");
        // Nothing is written of it: it is for nobody.
        let letter =
            json!({"from": "a@example.com", "to": [], "subject": "s", "text": "x".repeat(bytes)});
        call.request.body = letter.to_string().into();
        let mut calling = pin!(world.engine().call(call));
        let first: Option<Result<Answer, Refusal>> =
            poll_fn(|context| match calling.as_mut().poll(context) {
                Poll::Ready(ended) => Poll::Ready(Some(ended)),
                Poll::Pending => Poll::Ready(None),
            })
            .await;
        assert_eq!(first.is_some(), is_at_once, "{bytes}");
        let refusal = match first {
            Some(ended) => refused(ended),
            None => refused(calling.await),
        };
        assert!(matches!(refusal, Refusal::MailInvalid(_)), "{refusal:?}");
    }
}
