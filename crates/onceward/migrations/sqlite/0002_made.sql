-- What answers said that they made, by what it is called. A row may be left of what an operation
-- says no more: whoever finds one looks at the operation.
CREATE TABLE made (
  id   TEXT    NOT NULL,
  name TEXT    NOT NULL,
  seq  INTEGER NOT NULL,
  PRIMARY KEY (id, name, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX made_seq ON made (seq);
