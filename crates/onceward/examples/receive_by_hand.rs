//! How do I hand a call to the engine myself, from an edge of my own (a queue, another protocol)?
//!
//! ```sh
//! cargo run -p onceward --example receive_by_hand
//! ```

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use onceward::core::attempt::{Ending, Reached, Timings};
use onceward::core::exchange::{Headers, Request};
use onceward::problem::Problem;
use onceward::upstream::{Dispatch, Failure, Sent, Upstream};
use onceward::{Answer, Call, CallOptions, Handler, Onceward};

/// What does the work. How an attempt ended is the one thing that it has to be honest about.
struct Work;

impl Upstream for Work {
    fn send(&self, dispatch: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        Box::pin(async move {
            println!("works on {}", String::from_utf8_lossy(&dispatch.request.body));
            // Nobody can know whether it was done: where a second one does harm, it is in doubt.
            Sent::Failed(Failure {
                ending: Ending::Unanswered,
                reached: Reached::Sent,
                error: "the printer took the page and went silent".to_owned(),
                permanent: false,
                timings: Timings::default(),
            })
        })
    }
}

#[tokio::main]
async fn main() -> Result<(), onceward::StartError> {
    let once = Onceward::memory().await?;
    // Names the route and its policy; that it is a layer's does not matter.
    once.layer("print").register();
    for _ in 0..2 {
        let call = Call {
            tenant: "default".to_owned(),
            principal: "anna".to_owned(),
            route: "print".to_owned(),
            request: Request {
                method: "POST".to_owned(),
                target: "/pages".to_owned(),
                headers: Headers::default(),
                body: Bytes::from_static(b"page 1"),
            },
            options: CallOptions {
                key: Some("page-1".to_owned()),
                handler: Some(Handler(Arc::new(Work))),
                ..CallOptions::default()
            },
        };
        match once.engine().call(call).await {
            Ok(Answer::Upstream(answered)) => println!("{}", answered.response.status),
            Ok(other) => println!("{other:?}"),
            Err(refusal) => println!("{:#}", Problem::from(refusal).document()),
        }
    }
    once.stop().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() {
        super::main().unwrap();
    }
}
