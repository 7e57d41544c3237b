//! A ledger's keys under changing master keys, on the reference store.

use super::*;
use crate::store::memory::MemoryStore;

const NOW: Timestamp = Timestamp::from_micros(1_767_225_600_000_000);

fn ring(keys: &[u8]) -> KeyRing {
    let text: String = keys.iter().map(|key| format!("{key:02x}").repeat(32) + "\n").collect();
    KeyRing::of_text(&text).unwrap()
}

async fn opened(store: &MemoryStore, keys: &[u8]) -> Result<Secrets, KeysError> {
    open_secrets(store, &ring(keys), NOW).await
}

#[tokio::test]
async fn a_ledger_keeps_its_keys_whatever_master_key_wraps_them() {
    let store = MemoryStore::new();
    let first = opened(&store, &[1]).await.unwrap();
    let (name, sealed) = (first.name(b"x"), first.seal(b"text", b"a"));
    add(&store, &ring(&[1]), NOW).await.unwrap();
    rewrap(&store, &ring(&[2, 1])).await.unwrap();
    let then = opened(&store, &[2]).await.unwrap();
    assert_eq!((then.name(b"x"), then.open(&sealed, b"a").unwrap()), (name, b"text".to_vec()));
    // Fingerprints too: a repeat is one still.
    let id = onceward_core::id::OperationId::from_u128(3);
    assert_eq!(first.upstream_key(id), then.upstream_key(id));
    assert_eq!(then.current(), 1, "it seals under the newest");
    assert!(matches!(opened(&store, &[1]).await, Err(KeysError::NotGiven { .. })));
}

#[tokio::test]
async fn a_node_that_saw_a_new_ledger_before_another_began_it_has_the_keys_of_that_one() {
    let store = MemoryStore::new();
    let first = opened(&store, &[1]).await.unwrap();
    let found = begin(&store, &ring(&[1]), NOW).await.unwrap();
    let key = found.first().and_then(|row| row.key.as_ref()).unwrap();
    assert_eq!(Secrets::new(key.bytes).name(b"x"), first.name(b"x"));
    let other = begin(&MemoryStore::new(), &ring(&[1]), NOW).await.unwrap();
    assert_ne!(other.first().and_then(|row| row.key.as_ref()).unwrap().bytes, key.bytes);
}

#[tokio::test]
async fn a_start_without_a_key_that_is_needed_says_which() {
    let store = MemoryStore::new();
    opened(&store, &[1]).await.unwrap();
    let said = opened(&store, &[2, 3]).await.unwrap_err().to_string();
    for id in [ring(&[1]).current(), ring(&[2]).current(), ring(&[3]).current()] {
        assert!(said.contains(&id.to_string()), "{said}");
    }
}

#[tokio::test]
async fn where_rewrapping_broke_off_both_keys_open_and_the_next_start_goes_on() {
    let store = MemoryStore::new();
    let first = opened(&store, &[1]).await.unwrap();
    for _ in 0..3 {
        add(&store, &ring(&[1]), NOW).await.unwrap();
    }
    // As it is where the process ended between two rows.
    let (old, new) = (ring(&[1]), ring(&[2, 1]));
    for row in rows(&store, &old).await.unwrap().into_iter().take(2) {
        let wrapped = wrap(&new.current, &row.name, &row.key.unwrap()).unwrap();
        assert!(store.swap(row.name, Some(row.value), Some(wrapped)).await.unwrap());
    }
    let sealed = first.seal(b"text", b"a");
    for keys in [&[2, 1][..], &[1, 2]] {
        let then = opened(&store, keys).await.unwrap();
        assert_eq!(then.open(&sealed, b"a").unwrap(), b"text");
    }
    assert!(opened(&store, &[1]).await.is_err() && opened(&store, &[2]).await.is_err());
    rewrap(&store, &new).await.unwrap();
    opened(&store, &[2]).await.unwrap();
    // A node that was not told of the new order wraps back, and loses nothing.
    rewrap(&store, &ring(&[1, 2])).await.unwrap();
    opened(&store, &[1]).await.unwrap();
}

#[tokio::test]
async fn a_ledger_of_before_goes_on_under_the_master_key_that_it_was_begun_with() {
    let store = MemoryStore::new();
    let before = Secrets::new([1; 32]).of_old();
    assert!(is_of(&store, &before).await.unwrap());
    let sealed = before.seal(b"text", b"a");
    assert!(matches!(opened(&store, &[2]).await, Err(KeysError::OtherKey)));
    let now = opened(&store, &[2, 1]).await.unwrap();
    assert_eq!(
        (now.name(b"x"), now.open(&sealed, b"a").unwrap()),
        (before.name(b"x"), b"text".to_vec())
    );
    assert!(!now.seals_as_before(), "alone on its ledger it makes the first data key by itself");
    assert_eq!(now.current(), 1);
    rewrap(&store, &ring(&[2, 1])).await.unwrap();
    opened(&store, &[2]).await.unwrap();
}

#[tokio::test]
async fn rows_that_were_exchanged_or_changed_are_damage() {
    let store = MemoryStore::new();
    opened(&store, &[1]).await.unwrap();
    add(&store, &ring(&[1]), NOW).await.unwrap();
    let value = async |n| store.setting(name_of(n)).await.unwrap().unwrap();
    let (zero, one) = (value(0).await, value(1).await);
    let mut changed = one.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    for wrong in [zero.to_vec(), changed] {
        store.set(name_of(1), Some(wrong.into())).await.unwrap();
        let error = opened(&store, &[1]).await.unwrap_err();
        assert!(matches!(error, KeysError::Store(StoreError::Damaged(_))), "{error}");
    }
}

#[test]
fn a_node_of_several_seals_with_a_new_key_once_all_have_read_it() {
    let secrets = Secrets::new([1; 32]);
    let key = Key { bytes: [2; 32], made_at: NOW.as_micros() };
    let row = Read {
        number: 1,
        name: name_of(1),
        value: Bytes::new(),
        master: MasterKeyId(0),
        key: Some(key),
    };
    let rows = [row];
    learn(&secrets, &rows, true, NOW.plus(LOOKS_EVERY));
    assert_eq!(secrets.current(), FIRST);
    learn(&secrets, &rows, true, NOW.plus(SEALS_AFTER));
    assert_eq!(secrets.current(), 1);
    let alone = Secrets::new([1; 32]);
    learn(&alone, &rows, false, NOW);
    assert_eq!(alone.current(), 1);
}

#[tokio::test]
async fn nodes_with_two_orders_of_master_keys_do_not_wrap_back_and_forth() {
    let store = MemoryStore::new();
    opened(&store, &[1]).await.unwrap();
    let (old, new) = (ring(&[1, 2]), ring(&[2, 1]));
    assert!(takes(&store, &old, false).await.unwrap());
    assert!(takes(&store, &new, false).await.unwrap(), "it is new");
    for _ in 0..3 {
        assert!(!takes(&store, &old, false).await.unwrap(), "another followed it");
        assert!(takes(&store, &new, false).await.unwrap());
    }
    assert!(takes(&store, &old, true).await.unwrap(), "a person wants it back");
    assert!(!takes(&store, &new, false).await.unwrap());
}

#[tokio::test]
async fn the_master_key_that_wraps_is_older_than_the_one_that_a_node_comes_with() {
    let store = MemoryStore::new();
    opened(&store, &[1]).await.unwrap();
    assert!(takes(&store, &ring(&[2, 1]), false).await.unwrap());
    assert!(!takes(&store, &ring(&[1, 2]), false).await.unwrap());
}
