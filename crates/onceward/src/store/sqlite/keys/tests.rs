//! Keys held against a plain map, and what is left of those whose rows are gone.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The tables that keys need, and what they should say.
struct World {
    db: Connection,
    writer: KeyWriter,
    /// Rows and the keys that are their own.
    rows: BTreeMap<u64, Option<KeyDigest>>,
}

const FRESH: usize = 8;

/// Digests of which some share their first half.
fn key(n: u64) -> KeyDigest {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(n / 2).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    key[8..].copy_from_slice(&n.to_be_bytes());
    KeyDigest(key)
}

impl World {
    fn new() -> Self {
        let db = Connection::open_in_memory().unwrap();
        for migration in crate::store::sqlite::index::MIGRATIONS {
            db.execute_batch(migration).unwrap();
        }
        db.execute_batch("BEGIN IMMEDIATE").unwrap();
        let writer = KeyWriter::load(&db, FRESH, |_, _, _| true).unwrap();
        Self { db, writer, rows: BTreeMap::new() }
    }

    fn put(&mut self, seq: u64, own: Option<KeyDigest>) {
        if !self.rows.contains_key(&seq) {
            self.writer.note_inserted(seq);
        }
        self.db
            .execute(
                "INSERT OR REPLACE INTO op VALUES (?1, ?2, 0, 3, NULL, 1, x'')",
                params![seq, own.map(|key| key.0)],
            )
            .unwrap();
        if let Some(key) = own {
            self.writer.note(key, seq);
        }
        self.rows.insert(seq, own);
    }

    fn remove(&mut self, seq: u64) {
        self.db.execute("DELETE FROM op WHERE seq = ?1", [seq]).unwrap();
        self.writer.note_removed(seq);
        self.rows.remove(&seq);
    }

    fn commit(&self) {
        self.writer.settle(&self.db).unwrap();
        self.db.execute_batch("COMMIT; BEGIN IMMEDIATE").unwrap();
    }

    fn owner(&self, key: KeyDigest) -> Option<u64> {
        let own = |seq| Ok(self.rows.get(&seq).filter(|own| **own == Some(key)).map(|_| seq));
        self.writer.keys().find(&self.db, key, false, own).unwrap()
    }

    fn check(&self) {
        for (seq, key) in self.rows.iter().filter_map(|(seq, key)| Some((*seq, (*key)?))) {
            assert_eq!(self.owner(key), Some(seq), "{key:?}");
        }
    }

    fn pages(&self) -> u64 {
        self.db.query_row("SELECT count(*) FROM key_page", [], |row| row.get(0)).unwrap()
    }

    fn runs(&self) -> u64 {
        self.db.query_row("SELECT count(*) FROM key_run", [], |row| row.get(0)).unwrap()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_row_that_has_its_key_is_always_found(
        acts in proptest::collection::vec((0u8..12, any::<u64>()), 1..1500)
    ) {
        let mut world = World::new();
        let mut kept = world.rows.clone();
        let mut next = 1;
        for (act, n) in acts {
            let some = world.rows.keys().nth(n as usize % world.rows.len().max(1)).copied();
            match (act, some) {
                (0, _) => {
                    world.commit();
                    kept.clone_from(&world.rows);
                }
                (1, Some(seq)) => world.remove(seq),
                // The oldest go, as a sweep takes them.
                (5, Some(seq)) if n % 16 == 0 => {
                    let oldest: Vec<_> = world.rows.range(..seq).map(|(seq, _)| *seq).collect();
                    for seq in oldest {
                        world.remove(seq);
                    }
                }
                // Its key goes to a successor.
                (2, Some(seq)) => {
                    let key = world.rows[&seq];
                    world.put(seq, None);
                    world.put(next, key);
                    next += 1;
                }
                (3, _) if n % 8 == 0 => {
                    world.db.execute_batch("ROLLBACK; BEGIN IMMEDIATE").unwrap();
                    world.writer.reload(&world.db, false).unwrap();
                    world.rows.clone_from(&kept);
                }
                // A process that begins where the last one ended.
                (4, _) if n % 8 == 0 => {
                    world.commit();
                    kept.clone_from(&world.rows);
                    world.writer = KeyWriter::load(&world.db, FRESH, |_, _, _| true).unwrap();
                }
                _ => {
                    world.put(next, Some(key(next)));
                    next += 1;
                }
            }
            world.writer.tidy(&world.db).unwrap();
        }
        world.check();
        prop_assert_eq!(world.owner(key(next)), None);
    }
}

#[test]
fn what_is_gone_leaves_the_runs() {
    let mut world = World::new();
    for seq in 1..=4096 {
        world.put(seq, Some(key(seq)));
        world.writer.tidy(&world.db).unwrap();
    }
    (1..=4096).for_each(|seq| world.remove(seq));
    for seq in 5001..=8000 {
        world.put(seq, Some(key(seq)));
        world.writer.tidy(&world.db).unwrap();
    }
    world.commit();
    world.writer = KeyWriter::load(&world.db, FRESH, |_, _, _| true).unwrap();
    world.check();
    let runs = world.writer.keys().read().runs.clone();
    let left: u64 = runs.iter().map(|run| run.entries).sum();
    assert!(left < 4000, "3000 rows, {left} entries");
    let own: u64 = runs.iter().map(|run| run.pages()).sum();
    assert_eq!(world.pages(), own, "no page is left of a run that is no more");
}

/// What is left in runs once `live` rows are there of many, of which some went before their time.
fn left_after_a_long_life(live: u64, stays: bool) {
    let mut world = World::new();
    for seq in 1..=20 * live {
        world.put(seq, Some(key(seq)));
        if seq % 10 == 0 && seq > 20 {
            world.remove(seq - 15);
        }
        // One that nobody settles stays before all others.
        if seq > live && !(stays && seq == live + 1) && world.rows.contains_key(&(seq - live)) {
            world.remove(seq - live);
        }
        world.writer.tidy(&world.db).unwrap();
    }
    world.check();
    let runs = world.writer.keys().read().runs.clone();
    let entries: u64 = runs.iter().map(|run| run.entries).sum();
    assert!(entries < 3 * live, "{} rows, {entries} entries", world.rows.len());
    let pages: u64 = runs.iter().filter(|run| run.level > 0).map(|run| run.pages()).sum();
    assert!(pages < live / 8, "{} rows, {pages} pages", world.rows.len());
}

#[test]
fn what_is_swept_from_the_oldest_on_leaves_the_runs() {
    left_after_a_long_life(1000, false);
}

#[test]
fn what_is_swept_leaves_the_runs_though_the_oldest_stays() {
    left_after_a_long_life(1000, true);
}

#[test]
fn the_way_back_keeps_nothing_though_many_rows_are_in_no_run() {
    let mut world = World::new();
    (1..=3 * FRESH as u64).for_each(|seq| world.put(seq, Some(key(seq))));
    world.commit();
    world.db.execute("UPDATE applied SET keys_since = 0", []).unwrap();
    world.db.execute_batch("COMMIT; BEGIN IMMEDIATE").unwrap();
    let kept = world.runs();
    world.writer.reload(&world.db, false).unwrap();
    assert!(world.runs() > kept && world.writer.is_ahead(), "written, and not kept");
    world.check();
    world.db.execute_batch("ROLLBACK; BEGIN IMMEDIATE").unwrap();
    assert_eq!(world.runs(), kept);
    world.writer.reload(&world.db, false).unwrap();
    world.check();
}

#[test]
fn runs_stay_few_though_no_process_lives_long() {
    let mut world = World::new();
    for seq in 1..=4096 {
        world.put(seq, Some(key(seq)));
        world.writer.tidy(&world.db).unwrap();
        if seq % 40 == 0 {
            world.commit();
            world.writer = KeyWriter::load(&world.db, FRESH, |_, _, _| true).unwrap();
        }
    }
    world.check();
    assert!(world.runs() < 4 * BEHIND as u64, "{} runs", world.runs());
}

#[test]
fn a_page_that_was_changed_is_damage_and_no_new_key() {
    let mut world = World::new();
    (1..=8).for_each(|seq| world.put(seq, Some(key(seq))));
    world.commit();
    world.db.execute("UPDATE key_page SET entries = zeroblob(length(entries))", []).unwrap();
    let found = world.writer.keys().find(&world.db, key(1), false, |seq| Ok(Some(seq)));
    assert!(matches!(found, Err(StoreError::Damaged(_))), "{found:?}");
    assert!(matches!(
        KeyWriter::load(&world.db, FRESH, |_, _, _| true),
        Err(StoreError::Damaged(_))
    ));
}

#[test]
fn a_small_run_makes_the_steps_of_a_merge_no_larger() {
    let world = World::new();
    let run = |number, seqs: Range<u64>| {
        let mut entries: Vec<_> = seqs.map(|seq| entry(key(seq), seq)).collect();
        entries.sort_unstable();
        let mut run = Run::new(number, 2, entries.len() as u64);
        run.write(&world.db, 0, 0, &entries).unwrap();
        Arc::new(run)
    };
    let sources = vec![run(1, 1..4097), run(2, 4097..4098)];
    // What it is to hold may be less than any of its sources has room for.
    let target = Run::new(3, 2, 600);
    let gone = Gone { before: 3601, last: 0 };
    let mut merge = Merge::new(sources, target, gone);
    let mut steps = 0;
    while !merge.is_over() {
        merge.advance(&world.db, 1).unwrap();
        steps += 1;
    }
    assert_eq!((steps, merge.target.entries), (64, 497));
    for seq in 3601..4098 {
        let place = merge.target.place_of(key(seq)).unwrap();
        assert!(look(&world.db, place, key(seq)).unwrap().unwrap().contains(&seq), "{seq}");
    }
}

#[test]
fn a_row_that_no_run_leads_to_and_that_has_another_key_is_damage() {
    let mut world = World::new();
    world.put(1, Some(key(1)));
    world.commit();
    let loaded = KeyWriter::load(&world.db, FRESH, |seq, own, _| own == key(seq + 1));
    assert!(matches!(loaded, Err(StoreError::Damaged(_))), "{loaded:?}");
}

#[test]
fn a_late_row_that_was_lost_is_damage() {
    let mut world = World::new();
    (1..=3).for_each(|seq| world.put(seq, Some(key(seq))));
    world.remove(3);
    world.commit();
    world.writer = KeyWriter::load(&world.db, FRESH, |_, _, _| true).unwrap();
    world.db.execute("DELETE FROM op WHERE seq = 2", []).unwrap();
    let loaded = KeyWriter::load(&world.db, FRESH, |_, _, _| true);
    assert!(matches!(loaded, Err(StoreError::Damaged(_))), "{loaded:?}");
}

#[test]
fn a_run_that_was_lost_is_damage() {
    let mut world = World::new();
    (1..=FRESH as u64).for_each(|seq| world.put(seq, Some(key(seq))));
    world.commit();
    assert_eq!(world.db.execute("DELETE FROM key_run", []).unwrap(), 1);
    let loaded = KeyWriter::load(&world.db, FRESH, |_, _, _| true);
    assert!(matches!(loaded, Err(StoreError::Damaged(_))), "{loaded:?}");
}

#[test]
fn an_index_of_before_keeps_its_runs_and_counts_them_from_now_on() {
    let mut world = World::new();
    (1..=FRESH as u64 + 2).for_each(|seq| world.put(seq, Some(key(seq))));
    world.commit();
    world
        .db
        .execute_batch(
            "COMMIT; ALTER TABLE applied DROP COLUMN runs; ALTER TABLE applied DROP COLUMN counted; \
             ALTER TABLE applied DROP COLUMN counted_from; \
             ALTER TABLE key_run ADD COLUMN checked INTEGER NOT NULL DEFAULT 0",
        )
        .unwrap();
    world.db.execute_batch(crate::store::sqlite::index::MIGRATIONS[3]).unwrap();
    world.db.execute_batch("BEGIN IMMEDIATE").unwrap();
    world.writer = KeyWriter::load(&world.db, FRESH, |_, _, _| true).unwrap();
    world.check();
    world.commit();
    assert_eq!(world.db.execute("DELETE FROM key_run", []).unwrap(), 1);
    let loaded = KeyWriter::load(&world.db, FRESH, |_, _, _| true);
    assert!(matches!(loaded, Err(StoreError::Damaged(_))), "{loaded:?}");
}

#[test]
fn the_way_back_counts_and_notes_no_row_that_was_not_kept() {
    let mut world = World::new();
    (1..=2).for_each(|seq| world.put(seq, Some(key(seq))));
    world.commit();
    let kept = world.rows.clone();
    world.put(3, Some(key(3)));
    world.remove(1);
    world.db.execute_batch("ROLLBACK; BEGIN IMMEDIATE").unwrap();
    world.writer.gather_again(&world.db).unwrap();
    world.rows = kept;
    world.check();
    assert_eq!(world.writer.keys().read().fresh.len(), 2);
    world.commit();
    KeyWriter::load(&world.db, FRESH, |_, _, _| true).unwrap();
}
