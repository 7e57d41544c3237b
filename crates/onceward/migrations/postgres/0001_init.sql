-- At most one operation for each scope and key: `digest` is that of scope and key, so that the
-- constraint carries the tenant. Apart from the operations, which are partitioned by time, where
-- a key could be let in once for each partition.
CREATE TABLE key (
  digest bytea NOT NULL PRIMARY KEY,
  op     uuid  NOT NULL
) PARTITION BY HASH (digest);
DO $$
BEGIN
  FOR part IN 0..15 LOOP
    EXECUTE format('CREATE TABLE key_%s PARTITION OF key FOR VALUES WITH (MODULUS 16, REMAINDER %s)', part, part);
  END LOOP;
END $$;

-- One row for each operation. Its id begins with the time, so a range of ids is a day. `kind` is
-- where it stands; `row` is the operation in the shape of store/row.rs; `owner` is the session that
-- has it in hand; `has_key` is false once its key went to a successor. `expires` is when its window
-- ends and `gone` when nothing of it has to be kept; both are NULL while it is open.
CREATE TABLE op (
  id      uuid     NOT NULL PRIMARY KEY,
  fence   bigint   NOT NULL,
  kind    smallint NOT NULL,
  lane    integer  NOT NULL,
  due     bigint,
  owner   bigint,
  expires bigint,
  gone    bigint,
  has_key boolean  NOT NULL DEFAULT true,
  row     bytea    NOT NULL
) PARTITION BY RANGE (id);
CREATE TABLE op_rest PARTITION OF op DEFAULT;
-- Accepted work that waits, by lane: a dead upstream's backlog stands before nobody else's.
CREATE INDEX op_due ON op (lane, due) WHERE kind = 0;
-- What somebody has to look after; done operations and tombstones are not in it.
CREATE INDEX op_open ON op (kind, id) WHERE kind IN (1, 2, 4, 5, 6);

-- Requests and answers, written once. `day` counts from 1970-01-01, `n` is unique within it.
CREATE TABLE body (
  day   integer NOT NULL,
  n     bigint  NOT NULL,
  bytes bytea   NOT NULL,
  PRIMARY KEY (day, n)
) PARTITION BY RANGE (day);
CREATE TABLE body_rest PARTITION OF body DEFAULT;
-- Bodies are compressed by whoever wants them so.
ALTER TABLE body ALTER COLUMN bytes SET STORAGE EXTERNAL;
-- Nodes number bodies in blocks of 4096.
CREATE SEQUENCE body_block AS integer MINVALUE 0 MAXVALUE 1048575 CYCLE;

CREATE TABLE lane (
  id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant text NOT NULL,
  route  text NOT NULL,
  UNIQUE (tenant, route)
);

-- The right of each session, by this server's clock.
CREATE TABLE session (
  id        bigint      NOT NULL PRIMARY KEY,
  lapses_at timestamptz NOT NULL
);

-- How often keys were asked for again.
CREATE TABLE asked (
  op    uuid     NOT NULL PRIMARY KEY,
  count bigint   NOT NULL,
  times bigint[] NOT NULL
) PARTITION BY RANGE (op);
CREATE TABLE asked_rest PARTITION OF asked DEFAULT;

-- What is known of a day whose operations are all born: when the last window of it ends, and when
-- the last of it has to be kept.
CREATE TABLE day (
  day     integer NOT NULL PRIMARY KEY,
  expires bigint,
  gone    bigint
);

-- Days whose partitions are gone: what was still needed of them is in the partitions of the rest.
CREATE TABLE retention (
  one           integer NOT NULL PRIMARY KEY CHECK (one = 1),
  bodies_before integer NOT NULL,
  ops_before    integer NOT NULL
);
INSERT INTO retention VALUES (1, 0, 0);

CREATE TABLE setting (
  name  text  NOT NULL PRIMARY KEY,
  value bytea NOT NULL
);
