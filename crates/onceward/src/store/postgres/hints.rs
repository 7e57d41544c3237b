//! Hints between nodes: that something may be due, and that a setting changed. One that is lost is
//! made up for by looking from time to time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::link::{Address, Links, pause};
use super::queue::Queue;

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
        let ended = Arc::new(Notify::new());
        let (told, end) = (Arc::clone(&queue), Arc::clone(&ended));
        let heard = address.connect("LISTEN onceward", move |hint| match hint {
            Some(hint) if hint.payload() == SETTING => told.settings.notify_one(),
            Some(_) => told.changed.notify_one(),
            None => end.notify_one(),
        });
        if let Ok(_client) = heard.await {
            // What was told before nobody heard.
            queue.settings.notify_one();
            queue.changed.notify_one();
            ended.notified().await;
        }
        // Whoever hears nothing looks.
        queue.settings.notify_one();
        pause(HEAR_AGAIN).await;
    }
}
