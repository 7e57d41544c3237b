-- Which operation has a key is told by sorted runs that never change, and not by an index over random
-- keys, of which each new key would touch a page of its own. An entry only leads to a row: that its key
-- is there is what counts.
DROP INDEX op_key;

-- The runs that hold. `newest` is the greatest place in one; whether rows up to `checked` were gone was
-- looked at when it was written.
CREATE TABLE key_run (
  run     INTEGER PRIMARY KEY,
  level   INTEGER NOT NULL,
  bits    INTEGER NOT NULL,
  entries INTEGER NOT NULL,
  newest  INTEGER NOT NULL,
  checked INTEGER NOT NULL
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
