//! Hints between nodes: that something may be due, and that a setting changed. One that is lost is
//! made up for by looking from time to time.

use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::{AsyncMessage, NoTls};

use super::link::{Address, Links, pause};
use super::writer::Queue;

/// Between two hints to the other nodes: many writes are one hint.
const TELL_EVERY: Duration = Duration::from_millis(50);

/// Between two tries to hear of other nodes.
const HEAR_AGAIN: Duration = Duration::from_secs(1);

/// What is told with a setting that changed; work that may be due is told without a word.
pub(super) const SETTING: &str = "setting";

/// Tells other nodes that something may be due: a hint, apart from what is written.
pub(super) async fn tell(address: Address, queue: Arc<Queue>) {
    let links = Links::new(address, 1);
    loop {
        queue.tell.notified().await;
        // A hint that is lost is made up for by the next look.
        let _ = links.query("SELECT pg_notify('onceward', '')", &[]).await;
        pause(TELL_EVERY).await;
    }
}

/// Hears what other nodes tell.
pub(super) async fn listen(address: Address, queue: Arc<Queue>) {
    loop {
        let (config, tls) = address.parts();
        match tls {
            None => {
                if let Ok((client, connection)) = config.connect(NoTls).await {
                    hear(client, connection, &queue).await;
                }
            }
            Some(tls) => {
                if let Ok((client, connection)) = config.connect(tls.clone()).await {
                    hear(client, connection, &queue).await;
                }
            }
        }
        // Whoever hears nothing looks.
        queue.settings.notify_one();
        pause(HEAR_AGAIN).await;
    }
}

async fn hear<S, T>(
    client: tokio_postgres::Client,
    mut connection: tokio_postgres::Connection<S, T>,
    queue: &Queue,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let messages = async {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            match message {
                AsyncMessage::Notification(hint) if hint.payload() == SETTING => {
                    queue.settings.notify_one();
                }
                AsyncMessage::Notification(_) => queue.changed.notify_one(),
                _ => {}
            }
        }
    };
    let asked = async {
        // Where this fails the connection ends, and is made anew.
        if client.batch_execute("LISTEN onceward").await.is_ok() {
            // What was told before nobody heard.
            queue.settings.notify_one();
            queue.changed.notify_one();
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = messages => {}
        () = asked => {}
    }
}
