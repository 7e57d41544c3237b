//! An outbox within a PostgreSQL database of one's own.

use std::time::{Duration, SystemTime};

use onceward::core::key::Key;
use onceward::sql::postgres::Outbox;
use onceward::sql::{EnqueueError, Message};
use tokio_postgres::{AsyncMessage, NoTls};

use crate::within_postgres::{ask, connect, database};

#[tokio::test]
async fn a_message_is_in_the_table_as_it_will_leave() {
    let Some(url) = database().await else { return };
    let mut client = connect(&url).await;
    let message = Message::new("pay").unwrap().key(Key::new("order-1").unwrap());
    let message = message.json(&serde_json::json!({"amount": 5})).path("/v1/charges?a=b").unwrap();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
    let message = message.subject("order/1").sequence(4).not_before(at).method("PUT").unwrap();
    let outbox = Outbox::new();
    let tx = client.transaction().await.unwrap();
    let id = outbox.add(&tx, &message).await.unwrap();
    assert_eq!(outbox.add(&tx, &message).await.unwrap(), id);
    tx.commit().await.unwrap();
    let row: String = ask(
        &client,
        "SELECT concat_ws(' ', key, route, method, path, headers, convert_from(body, 'UTF8'), \
         subject, sequence, round(extract(epoch FROM not_before) * 1000)) FROM onceward.outbox",
    )
    .await;
    assert_eq!(
        row,
        "order-1 pay PUT /v1/charges?a=b {\"content-type\": \"application/json\"} \
         {\"amount\":5} order/1 4 1700000000123"
    );
    let other = message.json(&serde_json::json!({"amount": 6}));
    let tx = client.transaction().await.unwrap();
    let refused = outbox.add(&tx, &other).await.unwrap_err();
    assert!(matches!(refused, EnqueueError::AnotherRequest(key) if key.as_str() == "order-1"));
}

#[tokio::test]
async fn a_request_can_be_written_again_while_its_row_is_taken_away() {
    const WRITERS: usize = 4;
    const TIMES: usize = 50;
    let Some(url) = database().await else { return };
    let client = connect(&url).await;
    let writer = || {
        let url = url.clone();
        tokio::spawn(async move {
            let mut client = connect(&url).await;
            let message = Message::new("pay").unwrap().key(Key::new("order-1").unwrap());
            for _ in 0..TIMES {
                let tx = client.transaction().await.unwrap();
                Outbox::new().add(&tx, &message).await.unwrap();
                tx.commit().await.unwrap();
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| writer()).collect();
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        client.execute("DELETE FROM onceward.outbox", &[]).await.unwrap();
    }
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test]
async fn a_request_is_written_from_sql_and_told() {
    let Some(url) = database().await else { return };
    let (mut heard, told) = (connect_listening(&url).await, connect(&url).await);
    let json = "SELECT string_agg(convert_from(body, 'UTF8') || (headers ->> 'content-type'), ' ' \
                ORDER BY id) FROM onceward.outbox";
    told.batch_execute(
        "SELECT onceward_enqueue('pay', 'k1', '{\"a\":1}'); \
         SELECT onceward_enqueue('pay', 'k2', '{\"a\":2}'::jsonb); \
         SELECT onceward_enqueue('pay', 'k3', 'a=3', \
             headers => '{\"Content-Type\": \"application/x-www-form-urlencoded\"}'); \
         SELECT onceward_enqueue('pay', 'k4', '\\x00ff'::bytea); \
         SELECT onceward_enqueue('pay', key => 'k5', path => '/x', subject => 's', sequence => 1, \
             not_before => now())",
    )
    .await
    .unwrap();
    assert_eq!(heard.recv().await.unwrap(), "onceward_outbox");
    assert_eq!(
        ask::<String>(&told, json.replace("body", "nullif(body, '\\x00ff')").as_str()).await,
        "{\"a\":1}application/json {\"a\": 2}application/json"
    );
    let form = "SELECT headers ->> 'Content-Type' FROM onceward.outbox WHERE key = 'k3'";
    assert_eq!(ask::<String>(&told, form).await, "application/x-www-form-urlencoded");
    // Who has written but not committed keeps nobody from telling, and a plain row is told of too.
    let mut open = connect(&url).await;
    let tx = open.transaction().await.unwrap();
    Outbox::new().add(&tx, &Message::new("pay").unwrap()).await.unwrap();
    while heard.try_recv().is_ok() {}
    told.batch_execute("INSERT INTO onceward.outbox (route) VALUES ('pay')").await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "onceward_outbox");
    tx.commit().await.unwrap();
    assert_eq!(heard.recv().await.unwrap(), "onceward_outbox");
    let bare = "SELECT count(*) FROM onceward.outbox WHERE headers = '{}' AND key IN ('k4', 'k5')";
    assert_eq!(ask::<i64>(&told, bare).await, 2);
}

/// The channels that are notified.
async fn connect_listening(url: &str) -> tokio::sync::mpsc::UnboundedReceiver<String> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    let (told, heard) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) =
            std::future::poll_fn(|context| connection.poll_message(context)).await
        {
            if let AsyncMessage::Notification(notification) = message {
                let _ = told.send(notification.channel().to_owned());
            }
        }
    });
    client.batch_execute("LISTEN onceward_outbox").await.unwrap();
    // The connection lives as long as its client.
    std::mem::forget(client);
    heard
}
