//! A write boundary within a PostgreSQL database of one's own.

use onceward::sql::postgres::{Inbox, WriteBoundary};

use crate::within_postgres::{ask, connect, database, until_one_waits};

#[tokio::test]
async fn of_two_versions_at_once_the_newer_one_stays() {
    let Some(url) = database().await else { return };
    let (mut one, look) = (connect(&url).await, connect(&url).await);
    let inbox = Inbox::new("bills");
    for (subject, late, wins) in [("order/1", 1, false), ("order/2", 3, true)] {
        let first = one.transaction().await.unwrap();
        assert!(inbox.newest(&first, subject, 2).await.unwrap());
        let mut other = connect(&url).await;
        let second = tokio::spawn(async move {
            let tx = other.transaction().await.unwrap();
            let is_newest = Inbox::new("bills").newest(&tx, subject, late).await.unwrap();
            tx.commit().await.unwrap();
            is_newest
        });
        until_one_waits(&look).await;
        first.commit().await.unwrap();
        assert_eq!(second.await.unwrap(), wins, "{subject}");
    }
    let tx = one.transaction().await.unwrap();
    let seen = [3, 3, -1, 4, i64::MAX, 5].map(|version| inbox.newest(&tx, "order/2", version));
    let mut is_newest = Vec::new();
    for one in seen {
        is_newest.push(one.await.unwrap());
    }
    assert_eq!(is_newest, [false, false, false, true, true, false]);
    // A message's key and a subject of the same name are two things.
    assert!(inbox.first(&tx, "order/2").await.unwrap());
}

#[tokio::test]
async fn a_balance_that_many_change_at_once_comes_out_right() {
    const WRITERS: i64 = 8;
    const TIMES: i64 = 10;
    let Some(url) = database().await else { return };
    let client = connect(&url).await;
    let account = "CREATE TABLE account (id text PRIMARY KEY, balance bigint NOT NULL); \
                   INSERT INTO account VALUES ('a', 0)";
    client.batch_execute(account).await.unwrap();
    let writer = || {
        let url = url.clone();
        tokio::spawn(async move {
            let mut client = connect(&url).await;
            let boundary = WriteBoundary::new("account");
            for _ in 0..TIMES {
                loop {
                    // Both are read from one view of the database: it is the pair that has to fit.
                    let tx = client.transaction().await.unwrap();
                    let read = "SELECT balance, onceward.version_of('account', 'a') FROM account";
                    let row = tx.query_one(read, &[]).await.unwrap();
                    let (balance, version): (i64, Option<i64>) = (row.get(0), row.get(1));
                    if boundary.compare_and_swap(&tx, "a", version).await.unwrap() {
                        let set = "UPDATE account SET balance = $1";
                        tx.execute(set, &[&(balance + 1)]).await.unwrap();
                        tx.commit().await.unwrap();
                        break;
                    }
                }
            }
        })
    };
    let writers: Vec<_> = (0..WRITERS).map(|_| writer()).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(ask::<i64>(&client, "SELECT balance FROM account").await, WRITERS * TIMES);
    let version = "SELECT onceward.version_of('account', 'a')";
    assert_eq!(ask::<i64>(&client, version).await, WRITERS * TIMES);
}

#[tokio::test]
async fn the_write_boundary_says_who_may_write() {
    let Some(url) = database().await else { return };
    let mut client = connect(&url).await;
    let boundary = WriteBoundary::new("account");
    let tx = client.transaction().await.unwrap();
    assert_eq!(boundary.version(&tx, "a").await.unwrap(), None);
    assert!(!boundary.compare_and_swap(&tx, "a", Some(1)).await.unwrap());
    assert!(boundary.compare_and_swap(&tx, "a", None).await.unwrap());
    assert!(!boundary.compare_and_swap(&tx, "a", None).await.unwrap());
    assert!(boundary.compare_and_swap(&tx, "a", Some(1)).await.unwrap());
    assert!(!boundary.compare_and_swap(&tx, "a", Some(1)).await.unwrap());
    assert_eq!(boundary.version(&tx, "a").await.unwrap(), Some(2));

    assert!(boundary.first_write(&tx, "b").await.unwrap());
    assert!(!boundary.first_write(&tx, "b").await.unwrap());
    assert_eq!(boundary.last_write(&tx, "b").await.unwrap(), 2);
    assert_eq!(boundary.last_write(&tx, "c").await.unwrap(), 1);
    assert!(!boundary.first_write(&tx, "c").await.unwrap());
    assert!(!boundary.apply_if_newer(&tx, "c", 1).await.unwrap());
    assert!(boundary.apply_if_newer(&tx, "c", 9).await.unwrap());
}
