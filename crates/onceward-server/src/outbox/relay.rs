//! One outbox: batch after batch its rows become operations, and only then leave their table. What
//! breaks off in between comes again, and its key is known.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use onceward::relay::{Ask, Row, Source};
use onceward::secret::random;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::fate::{Fate, Held, in_lines, take_line};
use super::parked::{self, PARKED_MAX, Parked};
use super::seen::{Seen, Stands};
use crate::config::{Outbox, To};
use crate::gateway::Gateway;
use crate::problem::Problem;
use crate::telemetry::outbox as tell;

/// Before the second try, and between two tries at most.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often it is looked whether the node that reads a table is still there.
const STANDBY: Duration = Duration::from_secs(2);

/// How long a route, or a subject, is left alone that takes no more.
const HOLD: Duration = Duration::from_secs(1);

/// Subjects that are left alone, at most; past it their route is.
const HELD_MAX: usize = 64;

/// How often parked rows are looked at that a person at another node may have given free.
const PARKED_EVERY: Duration = Duration::from_secs(5);

/// How often it is looked whether parked rows are still in their table.
const GONE_EVERY: Duration = Duration::from_mins(1);

/// What reads one outbox.
pub(super) struct Relay {
    gateway: Arc<Gateway>,
    outbox: Arc<Outbox>,
    seen: Arc<Seen>,
    stop: watch::Receiver<bool>,
    source: Option<Source>,
    /// Remembered, and not taken away yet.
    taken: Vec<String>,
    parked: Passed,
    /// What takes no more for a while.
    held: BTreeMap<Held, Hold>,
}

/// Rows that are passed over.
#[derive(Debug, Default)]
struct Passed {
    ids: BTreeSet<String>,
    read_at: Option<Instant>,
    compared_at: Option<Instant>,
}

#[derive(Debug)]
struct Hold {
    until: Instant,
    /// When the first row was written that waits for it.
    oldest: Option<Instant>,
}

/// What went wrong.
#[derive(Debug)]
enum Trouble {
    /// With the table: it is opened anew.
    Table(String),
    /// With the ledger.
    Ledger(String),
}

/// What a look at the table brought.
#[derive(Debug, PartialEq, Eq)]
enum Pass {
    /// There may be more at once.
    More,
    /// That was all.
    All,
    /// Another node reads it.
    Standby,
}

impl Relay {
    pub(super) fn new(
        gateway: Arc<Gateway>,
        outbox: Arc<Outbox>,
        seen: Arc<Seen>,
        stop: watch::Receiver<bool>,
    ) -> Self {
        // What had no route when it was parked may have one since.
        seen.routes_changed();
        let (source, parked) = (None, Passed::default());
        let (taken, held) = (Vec::new(), BTreeMap::new());
        Self { gateway, outbox, seen, stop, source, taken, parked, held }
    }

    /// Reads until it is told to stop; a batch in hand is finished.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE;
        while !*self.stop.borrow() {
            let trouble = match self.pass().await {
                Ok(pass) => {
                    pause = PAUSE;
                    match pass {
                        Pass::More => {}
                        Pass::All => self.rest(self.outbox.poll, true).await,
                        Pass::Standby => self.rest(STANDBY, false).await,
                    }
                    continue;
                }
                Err(trouble) => trouble,
            };
            let why = match trouble {
                Trouble::Table(why) => {
                    self.source = None;
                    why
                }
                Trouble::Ledger(why) => why,
            };
            if self.seen.fails(&why) {
                tell::fails(&self.outbox.name, &why);
            }
            self.rest(jittered(pause), false).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Waits, but not past a word that there is more to do.
    async fn rest(&mut self, time: Duration, listens: bool) {
        let Self { source, stop, seen, .. } = self;
        let told = async {
            match source.as_ref().filter(|_| listens) {
                Some(source) => source.told().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep(time) => {}
            () = seen.woken() => {}
            () = told => {}
        }
    }

    async fn pass(&mut self) -> Result<Pass, Trouble> {
        if self.source.is_none() {
            let mut stop = self.stop.clone();
            let opened = tokio::select! {
                opened = Source::open(&self.outbox.table) => opened,
                _ = stop.wait_for(|stop| *stop) => return Ok(Pass::All),
            };
            self.source = opened.map_err(Trouble::Table)?;
        }
        if self.source.is_none() {
            // Whoever reads it now finds what is left in the table, and that it is known.
            self.taken.clear();
            self.stands(Stands::Standby);
            return Ok(Pass::Standby);
        }
        self.settle().await?;
        self.look_at_parked().await?;
        let now = Instant::now();
        self.held.retain(|_, hold| hold.until > now);
        let is_route_held = self.held.keys().any(|held| matches!(held, Held::Route(_)));
        if matches!(self.outbox.to, To::Route(..)) && is_route_held {
            return Ok(Pass::All);
        }
        let rows = self.read().await?;
        let oldest = oldest(&rows, self.seen.oldest().unwrap_or(now), now);
        self.seen.read(oldest.into_iter().chain(self.held_since()).min());
        self.stands(Stands::Reading);
        let is_full = rows.len() == self.outbox.batch_max;
        let (moved, stopped) = self.take(rows).await;
        self.settle().await?;
        if let Some(why) = stopped {
            return Err(Trouble::Ledger(why));
        }
        self.seen.caught_up(self.held_since());
        // Where nothing moved the same rows would come again at once.
        Ok(if is_full && moved > 0 { Pass::More } else { Pass::All })
    }

    fn stands(&self, stands: Stands) {
        if self.seen.stands(stands) {
            tell::stands(&self.outbox.name, stands);
        }
    }

    fn held_since(&self) -> Option<Instant> {
        self.held.values().filter_map(|hold| hold.oldest).min()
    }

    fn source(&self) -> Result<&Source, Trouble> {
        self.source.as_ref().ok_or_else(|| Trouble::Table("the table is not open".to_owned()))
    }

    async fn read(&self) -> Result<Vec<Row>, Trouble> {
        let routes = self.gateway.engine.routes();
        let body_bytes_max = routes.named.values().map(|route| route.body_bytes_max).max();
        let mut but_ids: Vec<String> = self.parked.ids.iter().cloned().collect();
        let (mut but_routes, mut but_subjects) = (Vec::new(), Vec::new());
        for held in self.held.keys().cloned() {
            match held {
                Held::Route(route) => but_routes.push(route),
                Held::Subject(subject) => but_subjects.push(subject),
                Held::Caller(id) => but_ids.push(id),
            }
        }
        let ask = Ask {
            max: self.outbox.batch_max,
            body_bytes_max: body_bytes_max.unwrap_or_default(),
            but_ids: &but_ids,
            but_routes: &but_routes,
            but_subjects: &but_subjects,
        };
        self.source()?.read(ask).await.map_err(Trouble::Table)
    }

    /// Remembers `rows`; tells for how many that is decided, and why it broke off, where it did for a
    /// reason that concerns all.
    async fn take(&mut self, rows: Vec<Row>) -> (usize, Option<String>) {
        let mut lines = JoinSet::new();
        for line in in_lines(rows) {
            lines.spawn(take_line(Arc::clone(&self.gateway), Arc::clone(&self.outbox), line));
        }
        let (mut moved, mut stopped) = (0, None);
        let (mut duplicates, mut remembered) = (0, 0);
        while let Some(line) = lines.join_next().await {
            // What a task that failed had in hand is read again.
            for (row, fate) in line.unwrap_or_default() {
                moved += usize::from(!matches!(fate, Fate::Stopped(_)));
                match fate {
                    Fate::Taken { is_duplicate } => {
                        *if is_duplicate { &mut duplicates } else { &mut remembered } += 1;
                        self.taken.push(row.id);
                    }
                    Fate::Parked(problem) => {
                        if let Err(why) = self.park(&row, &problem).await {
                            stopped = stopped.or(Some(why));
                        }
                    }
                    Fate::Held(held) => self.hold(held, &row),
                    Fate::Stopped(why) => stopped = stopped.or(Some(why)),
                }
            }
        }
        self.seen.count(|counts| {
            counts.duplicates += duplicates;
            counts.remembered += remembered;
        });
        tell::took(&self.outbox.name, remembered, duplicates);
        (moved, stopped)
    }

    /// Leaves what `row` waits for alone for a while.
    fn hold(&mut self, what: Held, row: &Row) {
        let has_many = self.held.len() >= HELD_MAX;
        let what = match (&self.outbox.to, &row.route) {
            (To::Route(route, _), _) | (To::Rows(_), Some(route)) if has_many => {
                Held::Route(route.clone())
            }
            _ => what,
        };
        let now = Instant::now();
        let oldest = oldest(std::slice::from_ref(row), now, now);
        self.held.entry(what).or_insert(Hold { until: now + HOLD, oldest });
    }

    async fn park(&mut self, row: &Row, problem: &Problem) -> Result<(), String> {
        let parked = Parked::new(row, problem);
        let store = &**self.gateway.engine.store();
        parked::park(store, &self.outbox.name, &parked).await.map_err(|error| error.to_string())?;
        tell::parked(&self.outbox.name, &parked);
        self.parked.ids.insert(parked.id);
        self.seen.parked(self.parked.ids.len());
        self.seen.count(|counts| counts.parked += 1);
        Ok(())
    }

    /// Takes away what is remembered.
    async fn settle(&mut self) -> Result<(), Trouble> {
        if !self.taken.is_empty() {
            self.source()?.settle(&self.taken).await.map_err(Trouble::Table)?;
            self.taken.clear();
        }
        Ok(())
    }

    /// Reads again which rows are passed over, where that may have changed.
    async fn look_at_parked(&mut self) -> Result<(), Trouble> {
        let wanted = self.seen.take_look_again();
        let is_old = |at: Option<Instant>, every| at.is_none_or(|at| at.elapsed() > every);
        if !wanted && !is_old(self.parked.read_at, PARKED_EVERY) {
            return Ok(());
        }
        let name = &self.outbox.name;
        let store = &**self.gateway.engine.store();
        let lost = |error: onceward::store::StoreError| Trouble::Ledger(error.to_string());
        let mut parked = parked::parked(store, name).await.map_err(lost)?;
        let mut over = BTreeSet::new();
        if self.seen.take_routes_changed() {
            let unrouted = parked.iter().filter(|parked| parked.code == "route-unknown");
            over.extend(unrouted.map(|parked| parked.id.clone()));
        }
        if !parked.is_empty() && (wanted || is_old(self.parked.compared_at, GONE_EVERY)) {
            let ids: Vec<String> = parked.iter().map(|parked| parked.id.clone()).collect();
            let there = self.source()?.still_there(&ids).await.map_err(Trouble::Table)?;
            let there: BTreeSet<String> = there.into_iter().collect();
            over.extend(ids.into_iter().filter(|id| !there.contains(id)));
            self.parked.compared_at = Some(Instant::now());
        }
        parked::retry(store, name, over.iter().map(String::as_str)).await.map_err(lost)?;
        parked.retain(|parked| !over.contains(&parked.id));
        self.parked.ids = parked.into_iter().map(|parked| parked.id).collect();
        self.parked.read_at = Some(Instant::now());
        self.seen.parked(self.parked.ids.len());
        if self.parked.ids.len() >= PARKED_MAX {
            return Err(Trouble::Ledger(format!(
                "{PARKED_MAX} rows are parked, and no more are read until some are not: `onceward outbox {name}` says why"
            )));
        }
        Ok(())
    }
}

/// When the oldest of `rows` was written; `unknown` where none says.
fn oldest(rows: &[Row], unknown: Instant, now: Instant) -> Option<Instant> {
    let written = |row: &Row| row.age.and_then(|age| now.checked_sub(age)).unwrap_or(unknown);
    rows.iter().map(written).min()
}

/// A pause that differs from that of others who wait for the same.
fn jittered(pause: Duration) -> Duration {
    let [chance] = random::<1>();
    pause.mul_f64(0.5 + f64::from(chance) / 510.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_neither_none_nor_longer_than_was_meant() {
        for _ in 0..100 {
            let pause = jittered(Duration::from_secs(2));
            assert!(
                (Duration::from_secs(1)..=Duration::from_secs(2)).contains(&pause),
                "{pause:?}"
            );
        }
    }
}
