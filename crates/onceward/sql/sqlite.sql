-- Onceward within your own database: inbox, outbox, and the write boundary. SQLite 3.24 or newer.
--
-- It can be run again, and brings an earlier version up to this one; what is in the tables stays.
-- Times are unix milliseconds.

-- Which version of this script ran last: one row.
CREATE TABLE IF NOT EXISTS onceward_installed (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    version      INTEGER NOT NULL,
    installed_at INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER))
);

-- Outbox: requests that leave once the transaction that wrote them has committed. There is one
-- writer at a time, so that ids are in the order of commits; none is given twice.
CREATE TABLE IF NOT EXISTS onceward_outbox (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT NOT NULL UNIQUE DEFAULT (lower(hex(randomblob(16)))),
    route      TEXT NOT NULL,
    method     TEXT NOT NULL DEFAULT 'POST',
    path       TEXT NOT NULL DEFAULT '/',
    headers    TEXT NOT NULL DEFAULT '{}',
    body       BLOB NOT NULL DEFAULT x'',
    subject    TEXT,
    sequence   INTEGER,
    not_before INTEGER,
    created_at INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER))
);

-- Inbox: what each consumer has handled.
CREATE TABLE IF NOT EXISTS onceward_inbox (
    consumer     TEXT NOT NULL CONSTRAINT consumer_has_1_to_1024_bytes CHECK (length(CAST(consumer AS BLOB)) BETWEEN 1 AND 1024),
    key          TEXT NOT NULL CONSTRAINT key_has_1_to_1024_bytes CHECK (length(CAST(key AS BLOB)) BETWEEN 1 AND 1024),
    processed_at INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
    PRIMARY KEY (consumer, key)
) WITHOUT ROWID;

-- Write boundary: the version at which each thing stands.
CREATE TABLE IF NOT EXISTS onceward_version (
    scope      TEXT NOT NULL CONSTRAINT scope_has_1_to_1024_bytes CHECK (length(CAST(scope AS BLOB)) BETWEEN 1 AND 1024),
    key        TEXT NOT NULL CONSTRAINT key_has_1_to_1024_bytes CHECK (length(CAST(key AS BLOB)) BETWEEN 1 AND 1024),
    version    INTEGER NOT NULL CONSTRAINT version_is_a_whole_number CHECK (typeof(version) = 'integer'),
    updated_at INTEGER NOT NULL DEFAULT (CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)),
    PRIMARY KEY (scope, key)
) WITHOUT ROWID;

INSERT INTO onceward_installed (one, version) VALUES (1, 1)
    ON CONFLICT (one) DO UPDATE SET version = excluded.version WHERE excluded.version > onceward_installed.version;
