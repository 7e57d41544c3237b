-- Settings are read by ranges of their names, whatever order the database has for texts.
ALTER TABLE setting ALTER COLUMN name TYPE text COLLATE "C";

-- What answers said that they made, by what it is called. A row may be left of what an operation
-- says no more: whoever finds one looks at the operation.
CREATE TABLE made (
  id   text COLLATE "C" NOT NULL,
  name text COLLATE "C" NOT NULL,
  op   uuid NOT NULL,
  PRIMARY KEY (id, name, op)
) PARTITION BY RANGE (op);
CREATE TABLE made_rest PARTITION OF made DEFAULT;
CREATE INDEX made_op ON made (op);
