//! Reading many rows: lists, counts, pages of the whole.

use std::collections::BTreeSet;

use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::lease::Session;
use onceward_core::operation::Operation;
use onceward_core::time::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, Row, params};

use super::{Index, decode};
use crate::store::moving::Kept;
use crate::store::row::{self, Signs, kind};
use crate::store::sqlite::record::Put;
use crate::store::{Asked, Backlog, Counted, Lane, Page, Query, Standing, StoreError, Way};

fn bytes_of<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a [u8], StoreError> {
    row.get_ref(at)?.as_blob().map_err(|error| StoreError::Damaged(error.to_string()))
}

impl Index {
    pub(in crate::store::sqlite) fn backlog(
        &self,
        lane: &Lane,
        max: u64,
    ) -> Result<Backlog, StoreError> {
        let mut backlog = Backlog::default();
        let mut statement = self.db.prepare_cached(
            "SELECT row FROM op WHERE kind = 0 AND lane IN \
             (SELECT id FROM lane WHERE tenant = ?1 AND (route = ?2 OR ?2 = '')) LIMIT ?3",
        )?;
        let mut rows = statement.query(params![lane.tenant, lane.route, max])?;
        while let Some(row) = rows.next()? {
            backlog.add(&decode(row.get_ref(0)?)?);
        }
        Ok(backlog)
    }

    pub(in crate::store::sqlite) fn list(&self, query: &Query) -> Result<Page, StoreError> {
        let mut page = Page::default();
        let before = query.begins_before().sequence();
        let signs = Signs::of(query);
        let has_signs = signs.finders();
        let (mut looked_at, mut passed, mut is_over) = (0, 0, false);
        let mut last = before;
        let mut visit = |seq: u64, row: &[u8]| {
            if query.ends_before(seq) {
                is_over = true;
                return Ok(false);
            }
            last = seq;
            if !has_signs(row) {
                // What is missing may have been there.
                row::holds(row)?;
                passed += 1;
                return Ok(passed < Query::PASSED_MAX);
            }
            looked_at += 1;
            let operation = decode(ValueRef::Blob(row))?;
            if query.wants(&operation) {
                page.operations.push(operation);
            }
            Ok(page.operations.len() < query.limit && looked_at < Query::ROWS_MAX)
        };
        // Few stand where something is to come or somebody has to look; where many wait, they are
        // soon met on the way through all.
        let is_open =
            !query.standing.is_empty() && query.standing.iter().copied().all(Standing::is_open);
        let waits = query.standing.contains(&Standing::Pending);
        let more = if let Some((name, id)) = &query.made {
            self.list_made(name.as_deref(), id, before, &mut visit)?
        } else if is_open && !(waits && self.do_many_wait()?) {
            self.list_open(query, before, &mut visit)?
        } else {
            self.scan_rows(
                "SELECT seq, row FROM op WHERE seq < ?1 ORDER BY seq DESC",
                params![before],
                &mut visit,
            )?
        };
        page.next = (more && !is_over).then(|| OperationId::new(last, 0));
        Ok(page)
    }

    /// By the names that it has, of each the newest, however many have it.
    fn list_made(
        &self,
        name: Option<&str>,
        id: &str,
        before: u64,
        visit: &mut impl FnMut(u64, &[u8]) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let sql = "WITH RECURSIVE names(name) AS ( \
                SELECT coalesce(?3, (SELECT min(name) FROM made WHERE id = ?1)) \
                UNION ALL SELECT (SELECT min(next.name) FROM made AS next \
                    WHERE next.id = ?1 AND next.name > names.name) \
                FROM names WHERE names.name IS NOT NULL AND ?3 IS NULL) \
            SELECT name FROM names WHERE name IS NOT NULL";
        let mut statement = self.db.prepare_cached(sql)?;
        let names =
            statement.query_map(params![id, before, name], |row| row.get::<_, String>(0))?;
        let (mut places, mut is_cut) = (BTreeSet::new(), false);
        for name in names {
            let sql = "SELECT seq FROM made WHERE id = ?1 AND name = ?2 AND seq < ?3 \
                ORDER BY seq DESC LIMIT ?4";
            let mut statement = self.db.prepare_cached(sql)?;
            let with = params![id, name?, before, Query::ROWS_MAX];
            let newest = statement.query_map(with, |row| row.get(0))?;
            let newest = newest.collect::<Result<Vec<u64>, _>>()?;
            is_cut |= newest.len() == Query::ROWS_MAX;
            places.extend(newest);
            // What is behind these comes with the next page.
            while places.len() > Query::ROWS_MAX {
                places.pop_first();
                is_cut = true;
            }
        }
        let mut statement = self.db.prepare_cached("SELECT row FROM op WHERE seq = ?1")?;
        for place in places.into_iter().rev() {
            let mut rows = statement.query([place])?;
            // A row may be left of an operation that is gone.
            if let Some(row) = rows.next()?
                && !visit(place, bytes_of(row, 0)?)?
            {
                return Ok(true);
            }
        }
        Ok(is_cut)
    }

    fn list_open(
        &self,
        query: &Query,
        before: u64,
        visit: &mut impl FnMut(u64, &[u8]) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let kinds: Vec<String> =
            query.standing.iter().map(|standing| kind(*standing).to_string()).collect();
        // Numbers of our own, not input.
        let open = format!(
            "op INDEXED BY op_open WHERE kind IN ({}) AND kind IN (1, 2, 4, 5, 6) AND seq < ?1",
            kinds.join(",")
        );
        let sql = if query.standing.contains(&Standing::Pending) {
            format!(
                "SELECT seq, row FROM op WHERE seq IN (SELECT seq FROM {open} UNION ALL \
                 SELECT seq FROM op INDEXED BY op_due WHERE kind = 0 AND seq < ?1) ORDER BY seq DESC"
            )
        } else {
            format!("SELECT seq, row FROM {open} ORDER BY seq DESC")
        };
        self.scan_rows(&sql, params![before], visit)
    }

    /// Whether more wait than are put in order for a list.
    fn do_many_wait(&self) -> Result<bool, StoreError> {
        let sql = "SELECT count(*) > ?1 FROM \
            (SELECT seq FROM op INDEXED BY op_due WHERE kind = 0 LIMIT ?1 + 1)";
        Ok(self.db.prepare_cached(sql)?.query_row([Query::ROWS_MAX], |row| row.get(0))?)
    }

    /// At most `max` operations that another session than this one has in hand.
    pub(in crate::store::sqlite) fn not_owned_by(
        &self,
        session: Session,
        max: usize,
    ) -> Result<Vec<Operation>, StoreError> {
        let mut found = Vec::new();
        let mut visit = |_, operation: Operation| {
            if operation.owner().is_some_and(|owner| owner != session) {
                found.push(operation);
            }
            found.len() < max
        };
        self.scan(
            "SELECT seq, row FROM op INDEXED BY op_open WHERE kind IN (1, 6) AND kind IN (1, 2, 4, 5, 6)",
            &[],
            &mut visit,
        )?;
        Ok(found)
    }

    /// Visits operations until `visit` has enough; tells whether there may be more.
    fn scan(
        &self,
        sql: &str,
        by: &[&dyn rusqlite::ToSql],
        visit: &mut impl FnMut(u64, Operation) -> bool,
    ) -> Result<bool, StoreError> {
        self.scan_rows(sql, by, &mut |seq, row| Ok(visit(seq, decode(ValueRef::Blob(row))?)))
    }

    /// The same of their rows, as they are kept.
    fn scan_rows(
        &self,
        sql: &str,
        by: &[&dyn rusqlite::ToSql],
        visit: &mut impl FnMut(u64, &[u8]) -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut statement = self.db.prepare_cached(sql)?;
        let mut rows = statement.query(by)?;
        while let Some(row) = rows.next()? {
            if !visit(row.get(0)?, bytes_of(row, 1)?)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// At most `max` operations after `from`, oldest first.
    pub(in crate::store::sqlite) fn after(
        &self,
        from: u64,
        max: usize,
    ) -> Result<Vec<(u64, Operation)>, StoreError> {
        let mut found = Vec::new();
        let mut visit = |seq, operation| {
            found.push((seq, operation));
            true
        };
        self.scan(
            "SELECT seq, row FROM op WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            params![from, max],
            &mut visit,
        )?;
        Ok(found)
    }

    /// At most `max` operations after `from` with what is kept beside them, oldest first.
    pub(in crate::store::sqlite) fn kept(
        &self,
        from: u64,
        max: usize,
    ) -> Result<Vec<Kept>, StoreError> {
        let mut statement = self.db.prepare_cached(
            "SELECT op.row, op.key IS NOT NULL, asked.count, asked.times FROM op \
             LEFT JOIN asked ON asked.seq = op.seq WHERE op.seq > ?1 ORDER BY op.seq LIMIT ?2",
        )?;
        let mut rows = statement.query(params![from, max])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let count: Option<u64> = row.get(2)?;
            let times: Option<Vec<u8>> = row.get(3)?;
            found.push(Kept {
                operation: decode(row.get_ref(0)?)?,
                has_key: row.get(1)?,
                asked: asked(count.unwrap_or_default(), &times.unwrap_or_default()),
            });
        }
        Ok(found)
    }

    /// How many operations there are.
    pub(in crate::store::sqlite) fn operations(&self) -> Result<u64, StoreError> {
        Ok(self.db.query_row("SELECT count(*) FROM op", [], |row| row.get(0))?)
    }

    /// At most `max` settings between these names, both left out.
    pub(in crate::store::sqlite) fn settings_between(
        &self,
        least: &str,
        greatest: &str,
        way: Way,
        max: usize,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut statement = self.db.prepare_cached(match way {
            Way::Up => {
                "SELECT name, value FROM setting WHERE name > ?1 AND name < ?2 ORDER BY name LIMIT ?3"
            }
            Way::Down => {
                "SELECT name, value FROM setting WHERE name > ?1 AND name < ?2 ORDER BY name DESC LIMIT ?3"
            }
        })?;
        let within = params![least, greatest, max];
        let rows = statement.query_map(within, |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect::<Result<_, _>>().map_err(StoreError::from)
    }

    /// Of each standing at most `max` rows and one more are looked at.
    pub(in crate::store::sqlite) fn count_open(
        &self,
        tenant: Option<&str>,
        max: u64,
    ) -> Result<Vec<(Standing, Counted)>, StoreError> {
        let limit = max.saturating_add(1).min(i64::MAX as u64);
        let count = |standing: Standing| {
            let (what, from) = match (standing, tenant) {
                (Standing::Pending, None) => {
                    ("1", "op INDEXED BY op_due WHERE kind = 0 AND ?1 = 0")
                }
                // By lane: what waits of others is not met.
                (Standing::Pending, Some(_)) => {
                    ("1", "op INDEXED BY op_due WHERE kind = 0 AND ?1 = 0 AND lane IN own")
                }
                (_, None) => {
                    ("1", "op INDEXED BY op_open WHERE kind = ?1 AND kind IN (1, 2, 4, 5, 6)")
                }
                (_, Some(_)) => (
                    "lane IN own",
                    "op INDEXED BY op_open WHERE kind = ?1 AND kind IN (1, 2, 4, 5, 6)",
                ),
            };
            // Words of our own, not input.
            let sql = format!(
                "WITH own AS MATERIALIZED (SELECT id FROM lane WHERE tenant = ?3) \
                 SELECT count(*), coalesce(sum(is_own), 0) FROM \
                 (SELECT {what} AS is_own FROM {from} LIMIT ?2)"
            );
            let mut statement = self.db.prepare_cached(&sql)?;
            let with = params![kind(standing), limit, tenant];
            let (looked_at, own) =
                statement.query_row(with, |row| Ok((row.get::<_, u64>(0)?, row.get(1)?)))?;
            Ok((standing, Counted::of(own, looked_at, max)))
        };
        let open = Standing::ALL.into_iter().filter(|standing| standing.is_open());
        open.map(count).collect()
    }

    pub(in crate::store::sqlite) fn oldest_in_doubt(
        &self,
        tenant: Option<&str>,
    ) -> Result<Option<Operation>, StoreError> {
        let mut found = None;
        self.scan(
            "SELECT seq, row FROM op INDEXED BY op_open WHERE kind = 2 AND kind IN (1, 2, 4, 5, 6) \
             AND (?1 IS NULL OR lane IN (SELECT id FROM lane WHERE tenant = ?1)) ORDER BY seq LIMIT 1",
            params![tenant],
            &mut |_, operation| {
                found = Some(operation);
                false
            },
        )?;
        Ok(found)
    }

    /// Visits every row with its columns, oldest first.
    pub(in crate::store::sqlite) fn columns(
        &self,
        mut visit: impl FnMut(&Put<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut statement =
            self.db.prepare("SELECT seq, key, lane, kind, due, fence, row FROM op ORDER BY seq")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let key: Option<[u8; 16]> = row.get(1)?;
            visit(&Put {
                seq: row.get(0)?,
                key: key.map(KeyDigest),
                lane: row.get(2)?,
                kind: row.get(3)?,
                due: row.get(4)?,
                fence: row.get(5)?,
                row: row
                    .get_ref(6)?
                    .as_blob()
                    .map_err(|error| StoreError::Damaged(error.to_string()))?,
            })?;
        }
        Ok(())
    }

    pub(in crate::store::sqlite) fn asked(&self, seq: u64) -> Result<Asked, StoreError> {
        let mut statement =
            self.db.prepare_cached("SELECT count, times FROM asked WHERE seq = ?1")?;
        let found = statement
            .query_row([seq], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, Vec<u8>>(1)?)))
            .optional()?;
        Ok(found.map_or_else(Asked::default, |(count, times)| asked(count, &times)))
    }
}

fn asked(count: u64, times: &[u8]) -> Asked {
    let time = |bytes: &[u8]| {
        Timestamp::from_micros(i64::from_le_bytes(bytes.try_into().unwrap_or_default()))
    };
    Asked { count, times: times.chunks_exact(8).map(time).collect() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use onceward_core::policy::Mode;

    use super::*;
    use crate::store::contract::operation;
    use crate::store::sqlite::{SqliteOptions, SqliteStore};
    use crate::store::{Birth, Store as _};

    /// More than one list reads.
    const ROWS: u64 = Query::ROWS_MAX as u64 + 100;

    #[tokio::test]
    async fn a_word_is_found_past_more_rows_than_a_list_reads() {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteOptions::default();
        let store = SqliteStore::open(&folder.path().join("ledger.db"), &options).unwrap();
        let births = (1..=ROWS).map(|n| {
            let operation = operation(n, &format!("key-{n}"), "r", Mode::Held);
            store.remember(Birth { operation, request: Bytes::new(), replaces: None })
        });
        for birth in births.collect::<Vec<_>>() {
            birth.await.unwrap();
        }
        let list = |query: Query| store.list(Query { limit: 10, ..query });
        let word = |word: &str| Some(word.to_owned());
        for query in [
            Query { key: word("key-1"), ..Query::default() },
            Query { label: word("label-1"), ..Query::default() },
            Query { text: word("ey-1"), label: word("label-1"), ..Query::default() },
            Query { key: word("key-1"), tenant: word("t"), route: word("r"), ..Query::default() },
        ] {
            let page = list(query.clone()).await.unwrap();
            assert_eq!(page.operations.len(), 1, "{query:?}");
            assert_eq!((page.operations[0].key.as_str(), page.next), ("key-1", None));
        }
        // By its id, which stands in no row as it is written.
        let newest = list(Query::default()).await.unwrap().operations[0].clone();
        let found = list(Query { text: Some(newest.id.to_string()), ..Query::default() });
        assert_eq!(found.await.unwrap().operations, [newest]);
        // What no word rules out is read, and no more than that many.
        let reason = Some(onceward_core::operation::Death::Refused);
        let page = list(Query { reason, ..Query::default() }).await.unwrap();
        assert!(page.operations.is_empty() && page.next.is_some());
    }
}
