-- Which operation has a key is told by sorted runs that never change, and not by an index over random
-- keys, of which each new key would touch a page of its own. An entry only leads to a row: that its key
-- is there is what counts.
DROP INDEX op_key;

-- The runs that hold. `newest` is the greatest place in one.
CREATE TABLE key_run (
  run     INTEGER PRIMARY KEY,
  level   INTEGER NOT NULL,
  bits    INTEGER NOT NULL,
  entries INTEGER NOT NULL,
  newest  INTEGER NOT NULL
) STRICT;

-- Their pages: `place` is the run and, below it, the first bits of the keys in it. What belongs to no
-- run is of one that was not finished.
CREATE TABLE key_page (
  place   INTEGER PRIMARY KEY,
  entries BLOB NOT NULL
) STRICT;

-- The keys of rows from this place on may be in no run.
ALTER TABLE applied ADD COLUMN keys_since INTEGER NOT NULL DEFAULT 0;
-- The greatest place that was ever removed.
ALTER TABLE applied ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;
-- How many rows there are from a place on, and how many runs: what is lost of them would make a known
-- key a new one. No row is counted until the first run is written.
ALTER TABLE applied ADD COLUMN counted_from INTEGER NOT NULL DEFAULT 9223372036854775807;
ALTER TABLE applied ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE applied ADD COLUMN runs INTEGER NOT NULL DEFAULT 0;
