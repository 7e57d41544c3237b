//! A run: keys in order, written once and never changed. Its pages are rows of the index, found by
//! the first bits of a key; a filter in memory tells of most keys that they are not in it.

use onceward_core::key::KeyDigest;
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::store::StoreError;

/// The first half of a key's digest, and the place of the row that it leads to.
pub(super) type Entry = u128;

const ENTRY_BYTES: usize = size_of::<Entry>();

/// Entries of a page: between this many and half of it, as keys fall evenly.
const PAGE_ENTRIES: u64 = 64;

/// A run has at most this many pages, by the logarithm.
const BITS_MAX: u8 = 24;

pub(super) fn entry(key: KeyDigest, seq: u64) -> Entry {
    u128::from(first_half(key)) << 64 | u128::from(seq)
}

pub(super) fn seq_of(entry: Entry) -> u64 {
    entry as u64
}

fn first_half(key: KeyDigest) -> u64 {
    key.0.iter().take(8).fold(0, |half, byte| half << 8 | u64::from(*byte))
}

/// What is known of a run without reading it.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    /// How many merges its oldest entries went through.
    pub(super) level: u8,
    /// How many bits of a key tell its page.
    pub(super) bits: u8,
    pub(super) entries: u64,
    /// The greatest place in it.
    pub(super) newest: u64,
    filter: Filter,
}

impl Run {
    /// An empty run, for at most `entries`.
    pub(super) fn new(number: u64, level: u8, entries: u64) -> Self {
        let pages = entries.div_ceil(PAGE_ENTRIES).next_power_of_two();
        let bits = (pages.trailing_zeros() as u8).min(BITS_MAX);
        let filter = Filter::new(entries);
        Self { number, level, bits, entries: 0, newest: 0, filter }
    }

    /// The place of its page `page`; of the one behind its last, the end of its places.
    pub(super) fn place(&self, page: u64) -> u64 {
        (self.number << BITS_MAX) + page
    }

    pub(super) fn pages(&self) -> u64 {
        1 << self.bits
    }

    /// The place of the page that has `key`, if it may be here.
    pub(super) fn place_of(&self, key: KeyDigest) -> Option<u64> {
        let half = first_half(key);
        self.filter.may_have(half).then(|| self.place(self.page_of(half)))
    }

    fn page_of(&self, half: u64) -> u64 {
        first_bits(half, self.bits)
    }

    /// Whether it has far more pages than its entries need.
    pub(super) fn is_sparse(&self) -> bool {
        self.bits > 0 && self.entries < (PAGE_ENTRIES / 8) << self.bits
    }

    /// Whether no page of it goes on behind `slice`.
    pub(super) fn has_whole_pages(&self, slice: u64, slices: u8) -> bool {
        (slice + 1).trailing_zeros() >= u32::from(slices.saturating_sub(self.bits))
    }

    /// Writes the pages that end with `slice`, a `2^slices`th of all keys: these entries, which are
    /// in order.
    pub(super) fn write(
        &mut self,
        db: &Connection,
        slice: u64,
        slices: u8,
        mut entries: &[Entry],
    ) -> Result<(), StoreError> {
        self.entries += entries.len() as u64;
        for entry in entries {
            self.newest = self.newest.max(seq_of(*entry));
            self.filter.add((entry >> 64) as u64);
        }
        for page in pages_of(slice, slices, self.bits) {
            let here = entries.partition_point(|entry| self.page_of((entry >> 64) as u64) <= page);
            let (own, rest) = entries.split_at(here);
            entries = rest;
            write_page(db, self.place(page), own)?;
        }
        Ok(())
    }

    /// Its entries in `slice`, a `2^slices`th of all keys, appended to `to`.
    pub(super) fn read(
        &self,
        db: &Connection,
        slice: u64,
        slices: u8,
        to: &mut Vec<Entry>,
    ) -> Result<(), StoreError> {
        for page in pages_of(slice, slices, self.bits) {
            let entries = read_page(db, self.place(page))?.ok_or_else(damaged)?;
            let is_here = |entry: &Entry| first_bits((entry >> 64) as u64, slices) == slice;
            to.extend(entries.into_iter().filter(is_here));
        }
        Ok(())
    }

    /// Makes it one of those that hold.
    pub(super) fn publish(&self, db: &Connection) -> Result<(), StoreError> {
        db.prepare_cached("INSERT INTO key_run VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
            self.number,
            self.level,
            self.bits,
            self.entries,
            self.newest
        ])?;
        Ok(())
    }

    /// All that hold, oldest first; each is read for its filter.
    pub(super) fn load_all(db: &Connection) -> Result<Vec<Self>, StoreError> {
        let mut statement =
            db.prepare("SELECT run, level, bits, entries, newest FROM key_run ORDER BY run")?;
        let rows = statement.query_map([], |row| {
            let entries: u64 = row.get(3)?;
            Ok(Self {
                number: row.get(0)?,
                level: row.get(1)?,
                bits: row.get(2)?,
                entries,
                newest: row.get(4)?,
                filter: Filter::new(0),
            })
        })?;
        rows.map(|run| run?.loaded(db)).collect()
    }

    fn loaded(mut self, db: &Connection) -> Result<Self, StoreError> {
        let holds_more = self.bits < BITS_MAX && self.entries > PAGE_ENTRIES << self.bits;
        if self.bits > BITS_MAX || holds_more {
            return Err(damaged());
        }
        let (mut page, mut entries) = (0, 0);
        let mut statement = db.prepare_cached(
            "SELECT place, entries FROM key_page WHERE place >= ?1 AND place < ?2 ORDER BY place",
        )?;
        let mut rows = statement.query([self.place(0), self.place(self.pages())])?;
        self.filter = Filter::new(self.entries);
        while let Some(row) = rows.next()? {
            if row.get::<_, u64>(0)? != self.place(page) {
                return Err(damaged());
            }
            let bytes = row.get_ref(1)?.as_blob().map_err(|_| damaged())?;
            for entry in entries_of(bytes)? {
                self.filter.add((entry >> 64) as u64);
                entries += 1;
            }
            page += 1;
        }
        if (page, entries) == (self.pages(), self.entries) { Ok(self) } else { Err(damaged()) }
    }
}

fn first_bits(half: u64, bits: u8) -> u64 {
    half.checked_shr(64 - u32::from(bits)).unwrap_or_default()
}

/// The pages that a slice lies in, of a run whose pages are told by `bits`.
fn pages_of(slice: u64, slices: u8, bits: u8) -> std::ops::Range<u64> {
    if let Some(each) = bits.checked_sub(slices) {
        return slice << each..(slice + 1) << each;
    }
    let page = slice >> (slices - bits);
    page..page + 1
}

/// The places in the page at `place` that `key` leads to; nothing where there is no such page.
pub(super) fn look(
    db: &Connection,
    place: u64,
    key: KeyDigest,
) -> Result<Option<Vec<u64>>, StoreError> {
    let Some(entries) = read_page(db, place)? else { return Ok(None) };
    let half = first_half(key);
    let found = entries.into_iter().filter(|entry| (entry >> 64) as u64 == half).map(seq_of);
    Ok(Some(found.collect()))
}

fn read_page(db: &Connection, place: u64) -> Result<Option<Vec<Entry>>, StoreError> {
    let mut statement = db.prepare_cached("SELECT entries FROM key_page WHERE place = ?1")?;
    let found = statement.query_row([place], |row| {
        Ok(row
            .get_ref(0)?
            .as_blob()
            .map_err(|_| damaged())
            .and_then(|bytes| Ok(entries_of(bytes)?.collect())))
    });
    found.optional()?.transpose()
}

/// A page is its entries, a CRC-32 of them in front.
fn entries_of(page: &[u8]) -> Result<impl Iterator<Item = Entry>, StoreError> {
    let (checksum, entries) = page.split_first_chunk().ok_or_else(damaged)?;
    let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
    if !rest.is_empty() || u32::from_le_bytes(*checksum) != crc32fast::hash(entries.as_flattened())
    {
        return Err(damaged());
    }
    Ok(entries.iter().map(|entry| Entry::from_le_bytes(*entry)))
}

fn write_page(db: &Connection, place: u64, entries: &[Entry]) -> Result<(), StoreError> {
    let mut page = Vec::with_capacity(size_of::<u32>() + ENTRY_BYTES * entries.len());
    page.extend([0; size_of::<u32>()]);
    for entry in entries {
        page.extend_from_slice(&entry.to_le_bytes());
    }
    let (checksum, written) = page.split_at_mut(size_of::<u32>());
    checksum.copy_from_slice(&crc32fast::hash(written).to_le_bytes());
    db.prepare_cached("INSERT OR REPLACE INTO key_page VALUES (?1, ?2)")?
        .execute(params![place, page])?;
    Ok(())
}

pub(super) fn damaged() -> StoreError {
    StoreError::Damaged("a run of keys in the index is not what was written".to_owned())
}

/// A Bloom filter in blocks: what there is of a key lies in one line of the cache.
#[derive(Debug)]
struct Filter(Vec<[u32; 8]>);

impl Filter {
    /// About one in three hundred keys that are not here seems to be.
    const KEYS_A_BLOCK: u64 = 20;

    /// Odd numbers, one for each word of a block.
    const SALT: [u32; 8] = [
        0x47b6_137b,
        0x4497_4d91,
        0x8824_ad5b,
        0xa2b7_289d,
        0x7054_95c7,
        0x2df1_424b,
        0x9efc_4947,
        0x5c6b_fb31,
    ];

    fn new(keys: u64) -> Self {
        Self(vec![[0; 8]; (keys / Self::KEYS_A_BLOCK + 1) as usize])
    }

    /// Blocks follow the order of keys, so that a run is filled in from one end to the other.
    fn block(&self, half: u64) -> usize {
        (((half >> 32) * self.0.len() as u64) >> 32) as usize
    }

    fn bits(half: u64) -> [u32; 8] {
        Self::SALT.map(|salt| 1 << ((half as u32).wrapping_mul(salt) >> 27))
    }

    fn add(&mut self, half: u64) {
        let block = self.block(half);
        for (word, bit) in self.0[block].iter_mut().zip(Self::bits(half)) {
            *word |= bit;
        }
    }

    fn may_have(&self, half: u64) -> bool {
        self.0[self.block(half)].iter().zip(Self::bits(half)).all(|(word, bit)| word & bit != 0)
    }
}
