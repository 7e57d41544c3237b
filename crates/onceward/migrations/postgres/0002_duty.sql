-- What one node does for all: who does it, and until when nobody else does, by this server's clock.
CREATE TABLE duty (
  name    text        NOT NULL PRIMARY KEY,
  holder  bigint      NOT NULL,
  ends_at timestamptz NOT NULL
);
