use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use onceward_core::attempt::Ending;
use onceward_core::exchange::Headers;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{ClientCredentials, OAuth2, PAUSE, Token};
use crate::upstream::{Answer, AnswerBody, Dispatch, Failure, Sent, Upstream};

/// A server of tokens: each has a number and lives for 100 s.
#[derive(Default)]
struct Tokens {
    asked: AtomicUsize,
    is_down: AtomicBool,
    /// Whether an answer waits until it is let go.
    holds: AtomicBool,
    let_go: Notify,
    /// How many seconds have gone by.
    seconds: AtomicU64,
}

struct Body(Option<String>);

impl AnswerBody for Body {
    fn chunk(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<Option<bytes::Bytes>, Failure>> + Send + '_>> {
        let piece = self.0.take().map(bytes::Bytes::from);
        Box::pin(std::future::ready(Ok(piece)))
    }

    fn trailers(&mut self) -> Headers {
        Headers::default()
    }
}

impl Upstream for Tokens {
    fn send(&self, _: Dispatch) -> Pin<Box<dyn Future<Output = Sent> + Send + '_>> {
        Box::pin(async {
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            if self.holds.load(Ordering::SeqCst) {
                self.let_go.notified().await;
            }
            let is_down = self.is_down.load(Ordering::SeqCst);
            let said = format!("{{\"access_token\":\"t{number}\",\"expires_in\":\"100\"}}");
            Sent::Answered(Answer {
                status: if is_down { 503 } else { 200 },
                headers: Headers::default(),
                body: Box::new(Body(Some(said))),
                note: None,
            })
        })
    }
}

impl Tokens {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn now(&self) -> Instant {
        static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
        *BEGUN + Duration::from_secs(self.seconds.load(Ordering::SeqCst))
    }

    fn advance(&self, time: Duration) {
        self.seconds.fetch_add(time.as_secs(), Ordering::SeqCst);
    }

    async fn token(&self, client: &OAuth2) -> Result<Token, Failure> {
        client.token_by(self, &|| self.now()).await
    }
}

fn client() -> OAuth2 {
    let credentials = ClientCredentials {
        token_url: "https://auth.example/token".parse().expect("a URL"),
        client_id: "us".to_owned(),
        client_secret: "canary".to_owned(),
        scope: None,
        audience: None,
    };
    assert!(!format!("{credentials:?}").contains("canary"));
    OAuth2::new(&credentials, Duration::from_secs(10))
}

async fn token(client: &OAuth2, tokens: &Tokens) -> Result<String, Failure> {
    let token = tokens.token(client).await?;
    Ok(token.line().to_str().expect("a line").to_owned())
}

#[tokio::test]
async fn one_renews_a_token_while_the_others_go_on_with_it() {
    let (client, tokens) = (Arc::new(client()), Arc::new(Tokens::default()));
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t1"));
    tokens.advance(Duration::from_secs(89));
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t1"));
    assert_eq!(tokens.asked(), 1);
    tokens.advance(Duration::from_secs(2));
    tokens.holds.store(true, Ordering::SeqCst);
    let renewing = {
        let (client, tokens) = (Arc::clone(&client), Arc::clone(&tokens));
        tokio::spawn(async move { token(&client, &tokens).await })
    };
    while tokens.asked() < 2 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t1"));
    }
    tokens.let_go.notify_one();
    assert_eq!(renewing.await.expect("no panic").as_deref(), Ok("Bearer t2"));
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t2"));
    assert_eq!(tokens.asked(), 2);
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_used_to_its_end_and_then_nothing_is_sent() {
    let (client, tokens) = (client(), Tokens::default());
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t1"));
    tokens.is_down.store(true, Ordering::SeqCst);
    tokens.advance(Duration::from_secs(95));
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t1"));
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t1"));
    assert_eq!(tokens.asked(), 2, "whoever fails waits before asking again");
    tokens.advance(Duration::from_secs(5));
    let failure = token(&client, &tokens).await.expect_err("none");
    assert_eq!((failure.ending, failure.permanent), (Ending::Unsent, false));
    assert_eq!(failure.error, "no access token: auth.example answers 503");
}

#[tokio::test]
async fn a_server_of_tokens_that_fails_is_asked_less_and_less_often() {
    let (client, tokens) = (client(), Tokens::default());
    tokens.is_down.store(true, Ordering::SeqCst);
    for (asked, pause) in [(1, PAUSE), (2, PAUSE * 2), (3, PAUSE * 4)] {
        for _ in 0..5 {
            assert!(token(&client, &tokens).await.is_err());
        }
        assert_eq!(tokens.asked(), asked);
        tokens.advance(pause);
    }
    tokens.is_down.store(false, Ordering::SeqCst);
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t4"));
}

#[tokio::test]
async fn a_refused_token_is_replaced_but_not_the_one_that_replaced_it() {
    let (client, tokens) = (client(), Tokens::default());
    let first = tokens.token(&client).await.expect("a token");
    assert!(client.refused_at(&first, tokens.now()).await);
    let second = tokens.token(&client).await.expect("a token");
    // Others had sent the first, too: they find another.
    assert!(client.refused_at(&first, tokens.now()).await);
    assert!(!client.refused_at(&second, tokens.now()).await);
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t2"));
    tokens.advance(super::REFUSED_AGAIN);
    assert!(client.refused_at(&second, tokens.now()).await);
    assert_eq!(token(&client, &tokens).await.as_deref(), Ok("Bearer t3"));
}

#[test]
fn a_query_of_the_place_where_tokens_are_from_is_asked_with() {
    let credentials = ClientCredentials {
        token_url: "https://auth.example/token?tenant=a".parse().expect("a URL"),
        client_id: "c".to_owned(),
        client_secret: "s".to_owned(),
        scope: None,
        audience: None,
    };
    let oauth2 = OAuth2::new(&credentials, Duration::from_secs(1));
    assert_eq!(oauth2.request.target, "/token?tenant=a");
    assert_eq!(oauth2.base().as_str(), "https://auth.example/");
}
