-- Onceward within your own database: inbox, outbox, and the write boundary. PostgreSQL 13 or newer.
--
-- Run it in one transaction, as a migration tool does, or: psql -1 -v ON_ERROR_STOP=1 -f FILE
-- It can be run again, and brings an earlier version up to this one; what is in the tables stays.

DO $$
BEGIN
    -- Two that install at once would trip over each other's half.
    PERFORM pg_advisory_xact_lock(hashtext('onceward.installed'));
    IF to_regclass('onceward.installed') IS NOT NULL THEN
        IF (SELECT version FROM onceward.installed) > 1 THEN
            RAISE EXCEPTION 'this database has a later version of Onceward''s SQL than this script, which is version 1'
                USING HINT = 'print the script with the newer onceward: onceward sql ddl --dialect postgres';
        END IF;
    END IF;
END
$$;

CREATE SCHEMA IF NOT EXISTS onceward;

-- Which version of this script ran last: one row.
CREATE TABLE IF NOT EXISTS onceward.installed (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    version      integer NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now()
);

-- Outbox: requests that leave once the transaction that wrote them has committed.
CREATE TABLE IF NOT EXISTS onceward.outbox (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id(), -- with id the order of commits, as far as one can be seen
    key        text NOT NULL UNIQUE DEFAULT gen_random_uuid()::text,
    route      text NOT NULL,
    method     text NOT NULL DEFAULT 'POST',
    path       text NOT NULL DEFAULT '/',
    headers    jsonb NOT NULL DEFAULT '{}',
    body       bytea NOT NULL DEFAULT '',
    subject    text,
    sequence   bigint,
    not_before timestamptz,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS outbox_commit_order ON onceward.outbox (xid, id);

-- Inbox: what each consumer has handled.
CREATE TABLE IF NOT EXISTS onceward.inbox (
    consumer     text NOT NULL CHECK (consumer <> ''),
    key          text NOT NULL CHECK (key <> ''),
    processed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, key)
);
-- Small, because rows come in the order of time; it is only there to forget by.
CREATE INDEX IF NOT EXISTS inbox_processed_at ON onceward.inbox USING brin (processed_at);

-- Write boundary: the version at which each thing stands.
CREATE TABLE IF NOT EXISTS onceward.version (
    scope      text NOT NULL CHECK (scope <> ''),
    key        text NOT NULL CHECK (key <> ''),
    version    bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);
