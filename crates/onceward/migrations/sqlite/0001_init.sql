-- One row for each operation, in time order: `seq` is the sequence of its id. `kind` is where it
-- stands; `row` is the operation in the shape of store/row.rs.
CREATE TABLE op (
  seq   INTEGER PRIMARY KEY,
  key   BLOB,
  lane  INTEGER NOT NULL,
  kind  INTEGER NOT NULL,
  due   INTEGER,
  fence INTEGER NOT NULL,
  row   BLOB NOT NULL
) STRICT;
-- At most one operation for each scope and key. A key that was given up is NULL.
CREATE UNIQUE INDEX op_key ON op (key);
-- Accepted work that waits, by lane: a dead upstream's backlog stands before nobody else's.
CREATE INDEX op_due ON op (lane, due) WHERE kind = 0;
-- What somebody has to look after; done operations and tombstones are not in it.
CREATE INDEX op_open ON op (kind, seq) WHERE kind IN (1, 2, 4, 5, 6);

CREATE TABLE lane (
  id     INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  route  TEXT NOT NULL,
  flow   TEXT NOT NULL,
  UNIQUE (tenant, route, flow)
) STRICT;

-- How often keys were asked for again.
CREATE TABLE asked (
  seq   INTEGER PRIMARY KEY,
  count INTEGER NOT NULL,
  times BLOB NOT NULL
) STRICT;

CREATE TABLE setting (
  name  TEXT PRIMARY KEY,
  value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- Up to where the journal is in these tables.
CREATE TABLE applied (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  segment  INTEGER NOT NULL,
  "offset" INTEGER NOT NULL,
  sequence INTEGER NOT NULL
) STRICT;
INSERT INTO applied VALUES (1, 1, 0, 0);
