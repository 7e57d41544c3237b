//! A batch as the server takes it: one statement over arrays for all that is new, all that changed
//! and all their bodies. One way there and back, one commit.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use onceward_core::admission::{bodies_over_at, leaves_no_tombstone};
use onceward_core::attempt::BodyRef;
use onceward_core::id::OperationId;
use onceward_core::key::KeyDigest;
use onceward_core::operation::{Operation, State, is_said_by_a_mail};
use onceward_core::time::Timestamp;
use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::days::Gone;
use super::link::{Id, Link, pause};
use super::read;
use crate::sabotage::Sabotage;
use crate::store::row::{self, kind};
use crate::store::{Standing, StoreError};

/// Arrays are unfolded where they are used, each row once: what is copied from step to step is never
/// a body. The bounds say before anything is read which days are concerned; put to the new rows too,
/// they let the planner expect few of those, so that each is looked up by its id, where all between
/// the bounds would be compared with each. `IS TRUE` keeps the looks into `won` and `written` hash
/// tables, where a join would be a loop in a loop.
macro_rules! writing {
    ($($more:expr),*) => {
        concat!(
            "\
    WITH won AS (INSERT INTO key (digest, op) \
        SELECT UNNEST($1::bytea[]) AS digest, UNNEST($2::uuid[]) ORDER BY digest \
        ON CONFLICT DO NOTHING RETURNING op), \
    ops AS (INSERT INTO op (id, fence, kind, lane, due, owner, row) SELECT * FROM ( \
        SELECT UNNEST($2::uuid[]) AS id, UNNEST($3::bigint[]), UNNEST($4::smallint[]), \
            UNNEST($5::integer[]), UNNEST($6::bigint[]), UNNEST($7::bigint[]), \
            UNNEST($8::bytea[])) AS new \
        WHERE (id IN (SELECT op FROM won)) IS TRUE), \
    done AS (UPDATE op SET fence = new.fence, kind = new.kind, due = new.due, owner = new.owner, \
        row = new.row, expires = new.expires, gone = new.gone FROM ( \
        SELECT UNNEST($9::uuid[]) AS id, UNNEST($10::bigint[]) AS fence, \
            UNNEST($11::smallint[]) AS kind, UNNEST($12::bigint[]) AS due, \
            UNNEST($13::bigint[]) AS owner, UNNEST($14::bytea[]) AS row, \
            UNNEST($15::bigint[]) AS expires, UNNEST($16::bigint[]) AS gone) AS new \
        WHERE new.id BETWEEN $17 AND $18 AND op.id = new.id AND op.id BETWEEN $17 AND $18 \
        AND op.fence = new.fence - 1 AND op.has_key RETURNING op.id), \
    written AS (SELECT op AS id FROM won UNION ALL SELECT id FROM done), \
    bodies AS (INSERT INTO body (day, n, bytes) SELECT day, n, bytes FROM ( \
        SELECT UNNEST($19::uuid[]) AS id, UNNEST($20::integer[]) AS day, \
            UNNEST($21::bigint[]) AS n, UNNEST($22::bytea[]) AS bytes) AS new \
        WHERE (id IN (SELECT id FROM written)) IS TRUE)",
            $($more,)*
            " SELECT id FROM written"
        )
    };
}

/// Lets some of it be found by its ids: by those of what was written, and in the same breath, so that nothing
/// is missed and nothing is found that never came about.
macro_rules! made {
    () => {
        ", made AS (INSERT INTO made (op, name, id) SELECT op, name, id FROM ( \
            SELECT UNNEST($23::uuid[]) AS op, UNNEST($24::text[]) AS name, \
                UNNEST($25::text[]) AS id) AS new \
            WHERE (op IN (SELECT id FROM written)) IS TRUE ON CONFLICT DO NOTHING)"
    };
}

/// Where changes put bodies in the place of others, those go with it, so that what is erased is never kept
/// where nothing leads to it.
macro_rules! over {
    ($id:literal, $day:literal, $n:literal, $first:literal, $last:literal) => {
        concat!(
            ", over AS (DELETE FROM body USING (SELECT UNNEST($",
            $id,
            "::uuid[]) AS id, UNNEST($",
            $day,
            "::integer[]) AS day, UNNEST($",
            $n,
            "::bigint[]) AS n) AS old \
            WHERE body.day = old.day AND body.n = old.n AND body.day BETWEEN $",
            $first,
            " AND $",
            $last,
            " AND (old.id IN (SELECT id FROM done)) IS TRUE)"
        )
    };
}

/// All that is new and all that changed.
pub(super) const WRITE: &str = writing!();

/// The same where some of it is found by its ids.
pub(super) const WRITE_MADE: &str = writing!(made!());

/// The same where changes put bodies in the place of others.
pub(super) const WRITE_OVER: &str = writing!(over!(23, 24, 25, 26, 27));

/// Both.
pub(super) const WRITE_MADE_OVER: &str = writing!(made!(), over!(26, 27, 28, 29, 30));

/// Lets operations of another ledger be found by their ids.
const MADE: &str = "\
    INSERT INTO made (op, name, id) \
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING";

/// Rows of an array lead to one partition each, where a whole array leads to all of them; here and
/// below.
pub(super) const KNOWN: &str = "SELECT k.digest, o.row FROM UNNEST($1::bytea[]) AS t(digest) \
    JOIN key k ON k.digest = t.digest JOIN op o ON o.id = k.op";

pub(super) const STORED: &str =
    "SELECT op.id, op.row FROM UNNEST($1::uuid[]) AS t(id) JOIN op ON op.id = t.id";

/// Frees keys whose operations went with their days.
pub(super) const FREE: &str = "DELETE FROM key USING UNNEST($1::bytea[]) AS t(digest) \
    WHERE key.digest = t.digest AND key.op < $2 \
    AND NOT EXISTS (SELECT FROM op_rest WHERE op_rest.id = key.op)";

const MARK: &str = "UPDATE op SET fence = t.fence, kind = t.kind, row = t.row FROM \
    UNNEST($1::uuid[], $2::bigint[], $3::smallint[], $4::bytea[]) AS t(id, fence, kind, row) \
    WHERE op.id = t.id AND op.fence = t.fence - 1 RETURNING op.id";

/// Lets a key in whether or not it is there.
const UNLOCK: &str = "DELETE FROM key WHERE digest = ANY($1)";

/// Makes every fence the one that a change wants.
const UNFENCE: &str = "UPDATE op SET fence = t.fence - 1 \
    FROM UNNEST($1::uuid[], $2::bigint[]) AS t(id, fence) WHERE op.id = t.id";

/// Between two tries of a write that is not held to its promise.
const SABOTAGED: Duration = Duration::from_millis(20);

/// Rows of operations, one array for each column.
#[derive(Default)]
pub(super) struct Columns {
    pub(super) ids: Vec<Id>,
    pub(super) fences: Vec<i64>,
    pub(super) kinds: Vec<i16>,
    pub(super) dues: Vec<Option<i64>>,
    pub(super) owners: Vec<Option<i64>>,
    pub(super) rows: Vec<Vec<u8>>,
    pub(super) expires: Vec<Option<i64>>,
    pub(super) gone: Vec<Option<i64>>,
}

impl Columns {
    pub(super) fn push(&mut self, operation: &Operation) {
        let mut bytes = Vec::new();
        row::encode(operation, &mut bytes);
        self.ids.push(Id(operation.id));
        self.fences.push(operation.fence.0 as i64);
        self.kinds.push(i16::from(kind(Standing::of(operation))));
        self.dues.push(match operation.state {
            State::Pending { due } => Some(due.as_micros()),
            _ => None,
        });
        self.owners.push(operation.owner().map(|session| session.0 as i64));
        self.rows.push(bytes);
        let expires = operation.key_expires_at().filter(|_| operation.state.is_ended());
        let kept_after =
            if leaves_no_tombstone(operation) { Duration::ZERO } else { operation.tombstone };
        // When its bodies may go: its key may last longer.
        let bodies_over = bodies_over_at(operation).or(expires);
        self.expires.push(bodies_over.map(Timestamp::as_micros));
        self.gone.push(expires.map(|at| at.plus(kept_after).as_micros()));
    }
}

impl<'a> FromIterator<&'a Operation> for Columns {
    fn from_iter<T: IntoIterator<Item = &'a Operation>>(operations: T) -> Self {
        let mut columns = Self::default();
        operations.into_iter().for_each(|operation| columns.push(operation));
        columns
    }
}

/// Bodies and their places, one array for each column.
#[derive(Default)]
pub(super) struct Bodies {
    pub(super) days: Vec<i32>,
    pub(super) ns: Vec<i64>,
    bytes: Vec<Bytes>,
}

impl Bodies {
    pub(super) fn push(&mut self, place: BodyRef, bytes: Bytes) {
        self.days.push(place.segment as i32);
        self.ns.push(i64::from(place.offset));
        self.bytes.push(bytes);
    }

    pub(super) fn bytes(&self) -> Vec<&[u8]> {
        self.bytes.iter().map(|bytes| &bytes[..]).collect()
    }
}

/// What operations are found by, one array for each column.
#[derive(Default)]
struct Made {
    ops: Vec<Id>,
    names: Vec<String>,
    ids: Vec<String>,
}

impl Made {
    fn push(&mut self, operation: &Operation, is_new: impl Fn(&str) -> bool) {
        for (name, id) in operation.ids.iter().filter(|(name, _)| is_new(name)) {
            self.ops.push(Id(operation.id));
            self.names.push(name.clone());
            self.ids.push(id.clone());
        }
    }
}

/// Which operations were written, and whether the transaction is known to have ended.
type Committed = (HashSet<OperationId>, Result<(), tokio_postgres::Error>);

/// What is written together.
#[derive(Default)]
pub(super) struct Batch {
    digests: Vec<KeyDigest>,
    lanes: Vec<i32>,
    born: Columns,
    changed: Columns,
    /// Whose each of `bodies` is: one that is not written leaves none.
    owners: Vec<Id>,
    bodies: Bodies,
    made: Made,
    /// Whose bodies others are put in the place of, and those.
    over: (Vec<Id>, Vec<i32>, Vec<i64>),
}

impl Batch {
    /// Changes and nothing else.
    pub(super) fn of_changed(changed: &[Operation]) -> Self {
        Self { changed: changed.iter().collect(), ..Self::default() }
    }

    pub(super) fn remember(&mut self, operation: &Operation, digest: KeyDigest, lane: i32) {
        self.digests.push(digest);
        self.lanes.push(lane);
        self.born.push(operation);
        self.made.push(operation, |_| true);
    }

    pub(super) fn change(&mut self, operation: &Operation) {
        self.changed.push(operation);
        // What a mail says itself was written with it.
        let is_mail = operation.is_mail();
        self.made.push(operation, |name| !(is_mail && is_said_by_a_mail(name)));
    }

    /// The body of one that is remembered or changed.
    pub(super) fn body(&mut self, of: OperationId, place: BodyRef, bytes: Bytes) {
        self.owners.push(Id(of));
        self.bodies.push(place, bytes);
    }

    /// Writes what can be: whose key is free, whose fence holds. Tells which.
    pub(super) async fn write(
        &self,
        link: &Link,
    ) -> Result<HashSet<OperationId>, tokio_postgres::Error> {
        self.sabotage(link).await?;
        let statement = link.prepare(self.sql()).await?;
        self.send(link, &statement).await
    }

    /// The same at the end of a transaction, in one way there and back; tells too what came of that.
    pub(super) async fn write_and_commit(
        &self,
        link: &Link,
    ) -> Result<Committed, tokio_postgres::Error> {
        self.sabotage(link).await?;
        // Prepared before: nothing that is waited for may let the end come first.
        let statement = link.prepare(self.sql()).await?;
        let (written, committed) = tokio::join!(biased; self.send(link, &statement), link.commit());
        Ok((written?, committed))
    }

    /// The body of one that is changed goes, since another is put in its place.
    pub(super) fn put_over(&mut self, of: OperationId, old: BodyRef) {
        self.over.0.push(Id(of));
        self.over.1.push(old.segment as i32);
        self.over.2.push(i64::from(old.offset));
    }

    /// Whether it puts bodies in the place of others: few batches do.
    fn is_over(&self) -> bool {
        !self.over.0.is_empty() && !Sabotage::ErasedBodyLeft.is_on()
    }

    fn sql(&self) -> &'static str {
        match (!self.made.ops.is_empty(), self.is_over()) {
            (false, false) => WRITE,
            (true, false) => WRITE_MADE,
            (false, true) => WRITE_OVER,
            (true, true) => WRITE_MADE_OVER,
        }
    }

    async fn send(
        &self,
        link: &Link,
        statement: &Statement,
    ) -> Result<HashSet<OperationId>, tokio_postgres::Error> {
        let in_order = |id: &&Id| id.0;
        let ids = &self.changed.ids;
        let (first, last) = (ids.iter().min_by_key(in_order), ids.iter().max_by_key(in_order));
        let (digests, bytes) = (digests(&self.digests), self.bodies.bytes());
        let (born, changed, bodies) = (&self.born, &self.changed, &self.bodies);
        let mut with: Vec<&(dyn ToSql + Sync)> = vec![
            &digests,
            &born.ids,
            &born.fences,
            &born.kinds,
            &self.lanes,
            &born.dues,
            &born.owners,
            &born.rows,
            &changed.ids,
            &changed.fences,
            &changed.kinds,
            &changed.dues,
            &changed.owners,
            &changed.rows,
            &changed.expires,
            &changed.gone,
            &first,
            &last,
            &self.owners,
            &bodies.days,
            &bodies.ns,
            &bytes,
        ];
        let Made { ops, names, ids: made } = &self.made;
        if !ops.is_empty() {
            with.extend([ops as &(dyn ToSql + Sync), names, made]);
        }
        let (owners, days, ns) = &self.over;
        let (first_day, last_day) = (days.iter().min(), days.iter().max());
        if self.is_over() {
            with.extend([owners as &(dyn ToSql + Sync), days, ns, &first_day, &last_day]);
        }
        let written = link.client.query(statement, &with).await?;
        Ok(written.iter().map(|found| found.get::<_, Id>(0).0).collect())
    }

    /// The operations that have the keys of those that were not `written`.
    pub(super) async fn known(
        &self,
        link: &Link,
        written: &HashSet<OperationId>,
        gone: &Gone,
    ) -> Result<HashMap<KeyDigest, Result<Operation, StoreError>>, tokio_postgres::Error> {
        let keys = self.born.ids.iter().zip(&self.digests);
        let lost: Vec<KeyDigest> =
            keys.filter(|(id, _)| !written.contains(&id.0)).map(|(_, digest)| *digest).collect();
        if lost.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = link.query(KNOWN, &[&digests(&lost)]).await?;
        // One that cannot be read must not take the others with it.
        let seen = |found: &tokio_postgres::Row| Ok(gone.seen(read(found.get(1))?));
        let digest = |found: &tokio_postgres::Row| found.get::<_, &[u8]>(0).try_into().ok();
        let known = rows.iter().filter_map(|found| Some((KeyDigest(digest(found)?), seen(found))));
        Ok(known.collect())
    }

    /// The rows of those that were to be changed and were not `written`, as they stand.
    pub(super) async fn stored(
        &self,
        link: &Link,
        written: &HashSet<OperationId>,
    ) -> Result<HashMap<OperationId, Vec<u8>>, tokio_postgres::Error> {
        let ids = self.changed.ids.iter().filter(|id| !written.contains(&id.0));
        let refused: Vec<Id> = ids.copied().collect();
        if refused.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = link.query(STORED, &[&refused]).await?;
        Ok(rows.iter().map(|found| (found.get::<_, Id>(0).0, found.get(1))).collect())
    }

    /// Frees those of its keys whose operations went with their days.
    pub(super) async fn free_keys(
        &self,
        link: &Link,
        gone: &Gone,
    ) -> Result<(), tokio_postgres::Error> {
        link.query(FREE, &[&digests(&self.digests), &Id(gone.oldest())]).await.map(drop)
    }

    /// Breaks a promise of the write that follows, where it is to be broken.
    async fn sabotage(&self, link: &Link) -> Result<(), tokio_postgres::Error> {
        if Sabotage::SelectThenInsert.is_on()
            && let Some(first) = self.born.ids.first()
        {
            let digests = digests(&self.digests);
            if link.query(KNOWN, &[&digests]).await?.is_empty() {
                // Each takes its time, so that one comes after the other.
                pause(SABOTAGED * (10 + (first.0.sequence() % 64) as u32)).await;
                link.query(UNLOCK, &[&digests]).await?;
            }
        }
        if Sabotage::NoFence.is_on() && !self.changed.ids.is_empty() {
            link.query(UNFENCE, &[&self.changed.ids, &self.changed.fences]).await?;
        }
        Ok(())
    }
}

/// Digests as the server takes them.
pub(super) fn digests(digests: &[KeyDigest]) -> Vec<&[u8]> {
    digests.iter().map(|digest| &digest.0[..]).collect()
}

/// Lets an operation of another ledger be found by what it made, and what it says of itself.
pub(super) async fn note_made(
    link: &Link,
    operation: &Operation,
) -> Result<(), tokio_postgres::Error> {
    let mut made = Made::default();
    made.push(operation, |_| true);
    if made.ops.is_empty() {
        return Ok(());
    }
    link.query(MADE, &[&made.ops, &made.names, &made.ids]).await.map(drop)
}

/// Leaves of operations only their marks, whether they have their keys or not; tells how many.
pub(super) async fn mark(link: &Link, marks: &[Operation]) -> Result<u64, tokio_postgres::Error> {
    let Columns { ids, fences, kinds, rows, .. } = &marks.iter().collect();
    Ok(link.query(MARK, &[ids, fences, kinds, rows]).await?.len() as u64)
}
