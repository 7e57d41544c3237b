-- Onceward within your own database: inbox, outbox, and the write boundary. PostgreSQL 13 or newer.
--
-- Run it in one transaction, as a migration tool does, or: psql -1 -v ON_ERROR_STOP=1 -f FILE
-- It can be run again, and brings an earlier version up to this one; what is in the tables stays.

DO $$
BEGIN
    -- Two that install at once would trip over each other's half.
    PERFORM pg_advisory_xact_lock(hashtext('onceward.installed'), 0);
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

-- What the functions below refuse before they write: names that say nothing, or that no index holds.
CREATE OR REPLACE FUNCTION onceward.check_name(what text, name text) RETURNS void
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF name IS NULL OR name = '' THEN
        RAISE EXCEPTION 'onceward: % is null or empty', what USING ERRCODE = 'invalid_parameter_value';
    ELSIF octet_length(name) > 1024 THEN
        RAISE EXCEPTION 'onceward: % has % bytes, and 1024 are the most', what, octet_length(name)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'use a digest of it';
    END IF;
END
$$;

-- Whether this transaction is the first to handle `key` for `consumer`. Where another has it in hand
-- this waits until that one has ended, and if it rolled back, this one is the first.
CREATE OR REPLACE FUNCTION onceward.first(consumer text, key text) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM onceward.check_name('the consumer', first.consumer);
    PERFORM onceward.check_name('the key', first.key);
    INSERT INTO onceward.inbox (consumer, key) VALUES (first.consumer, first.key)
    ON CONFLICT (consumer, key) DO NOTHING;
    RETURN FOUND;
END
$$;

-- Those of `keys` that this transaction is the first to handle, each once; in the order of keys, so
-- that two batches wait for one another and never in a ring.
CREATE OR REPLACE FUNCTION onceward.first_of(consumer text, keys text[]) RETURNS SETOF text
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    name text;
BEGIN
    PERFORM onceward.check_name('the consumer', first_of.consumer);
    FOREACH name IN ARRAY coalesce(first_of.keys, '{}') LOOP
        PERFORM onceward.check_name('a key', name);
    END LOOP;
    RETURN QUERY
    INSERT INTO onceward.inbox (consumer, key)
    SELECT first_of.consumer, wanted.key
    FROM (SELECT DISTINCT unnest(first_of.keys) COLLATE "C" AS key) AS wanted
    ORDER BY wanted.key
    ON CONFLICT (consumer, key) DO NOTHING
    RETURNING key;
END
$$;

-- Forgets what was handled before `before`, of one consumer or of all, and says how many. Whatever
-- is delivered once more after that is the first again: leave more time than any sender retries.
CREATE OR REPLACE FUNCTION onceward.forget(before timestamptz, consumer text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    forgotten bigint;
BEGIN
    IF forget.before IS NULL OR forget.before > now() THEN
        RAISE EXCEPTION 'onceward: before is null or still to come, which would forget all there is'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'such as now() - interval ''30 days''';
    END IF;
    DELETE FROM onceward.inbox AS held
    WHERE held.processed_at < forget.before
        AND (forget.consumer IS NULL OR held.consumer = forget.consumer);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;

-- Newest wins: whether `version` is greater than where (scope, key) stands, which then stands at it.
CREATE OR REPLACE FUNCTION onceward.apply_if_newer(scope text, key text, version bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM onceward.check_name('the scope', apply_if_newer.scope);
    PERFORM onceward.check_name('the key', apply_if_newer.key);
    IF apply_if_newer.version IS NULL THEN
        RAISE EXCEPTION 'onceward: the version is null' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO onceward.version AS held (scope, key, version)
    VALUES (apply_if_newer.scope, apply_if_newer.key, apply_if_newer.version)
    ON CONFLICT (scope, key) DO UPDATE SET version = excluded.version, updated_at = now()
        WHERE held.version < excluded.version;
    RETURN FOUND;
END
$$;

-- Compare and swap: whether (scope, key) stood at `expected` (null: nobody has written it), and
-- stands at `next` now, which is the version after it unless it is given.
CREATE OR REPLACE FUNCTION onceward.compare_and_swap(
    scope text, key text, expected bigint, next bigint DEFAULT NULL
) RETURNS boolean
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    goal bigint := coalesce(compare_and_swap.next, coalesce(compare_and_swap.expected, 0) + 1);
BEGIN
    PERFORM onceward.check_name('the scope', compare_and_swap.scope);
    PERFORM onceward.check_name('the key', compare_and_swap.key);
    -- A version that comes back would let in whoever still expects it.
    IF goal <= compare_and_swap.expected THEN
        RAISE EXCEPTION 'onceward: the next version, %, is not after the expected one, %',
            goal, compare_and_swap.expected USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF compare_and_swap.expected IS NULL THEN
        INSERT INTO onceward.version (scope, key, version)
        VALUES (compare_and_swap.scope, compare_and_swap.key, goal)
        ON CONFLICT (scope, key) DO NOTHING;
    ELSE
        UPDATE onceward.version AS held SET version = goal, updated_at = now()
        WHERE held.scope = compare_and_swap.scope AND held.key = compare_and_swap.key
            AND held.version = compare_and_swap.expected;
    END IF;
    RETURN FOUND;
END
$$;

-- First write wins: whether nobody has written (scope, key) before; it stands at version 1 then.
CREATE OR REPLACE FUNCTION onceward.first_write(scope text, key text) RETURNS boolean
LANGUAGE sql AS $$
    SELECT onceward.compare_and_swap(scope, key, NULL)
$$;

-- Last write wins: writers pass one after the other, and each gets the number of its place.
CREATE OR REPLACE FUNCTION onceward.last_write(scope text, key text) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    place bigint;
BEGIN
    PERFORM onceward.check_name('the scope', last_write.scope);
    PERFORM onceward.check_name('the key', last_write.key);
    INSERT INTO onceward.version AS held (scope, key, version)
    VALUES (last_write.scope, last_write.key, 1)
    ON CONFLICT (scope, key) DO UPDATE SET version = held.version + 1, updated_at = now()
    RETURNING version INTO place;
    RETURN place;
END
$$;

-- Where (scope, key) stands; null where nobody has written it.
CREATE OR REPLACE FUNCTION onceward.version_of(scope text, key text) RETURNS bigint
LANGUAGE sql STABLE AS $$
    SELECT held.version FROM onceward.version AS held WHERE held.scope = $1 AND held.key = $2
$$;

-- Wakes whoever reads the outbox. NOTIFY makes commits go one by one, so one transaction at a time
-- does it and the others commit beside it: a hint, and whoever reads looks by itself too.
CREATE OR REPLACE FUNCTION onceward.tell_of_outbox() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF pg_try_advisory_xact_lock(hashtext('onceward.outbox'), 0) THEN
        PERFORM pg_notify('onceward_outbox', '');
    END IF;
    RETURN NULL;
END
$$;

-- At the commit and not before, so that a long transaction keeps nobody from telling.
DROP TRIGGER IF EXISTS tell ON onceward.outbox;
CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON onceward.outbox
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION onceward.tell_of_outbox();

-- Writes a request that leaves when this transaction has committed, and gives its row's id. Without a
-- key it gets one. The same request under a key that still waits here is that row again; another
-- request under it is refused.
CREATE OR REPLACE FUNCTION onceward.enqueue(
    route text, key text, body bytea, method text DEFAULT 'POST', path text DEFAULT '/',
    headers jsonb DEFAULT '{}', subject text DEFAULT NULL, sequence bigint DEFAULT NULL,
    not_before timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    row_id bigint;
    is_same boolean;
    wrong text;
BEGIN
    PERFORM onceward.check_name('the route', enqueue.route);
    enqueue.key := coalesce(enqueue.key, gen_random_uuid()::text);
    enqueue.body := coalesce(enqueue.body, '');
    enqueue.method := coalesce(enqueue.method, 'POST');
    enqueue.path := coalesce(enqueue.path, '/');
    enqueue.headers := coalesce(enqueue.headers, '{}');
    wrong := CASE
        WHEN octet_length(enqueue.key) > 255 OR enqueue.key !~ '^[!-~]([ -~]*[!-~])?$'
            THEN 'the key is not 1 to 255 visible ASCII letters'
        WHEN enqueue.method !~ '^[A-Z][A-Z-]*$'
            THEN 'the method is not one, such as POST'
        WHEN enqueue.path !~ '^/[!-~]*$'
            THEN 'the path does not begin with a slash, or has what a path has not'
        WHEN jsonb_typeof(enqueue.headers) <> 'object'
            THEN 'the headers are not an object, such as {"content-type": "application/json"}'
        WHEN EXISTS (
            SELECT FROM jsonb_each(enqueue.headers) AS line
            WHERE jsonb_typeof(line.value) <> 'string'
                OR line.key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]+$'
                OR line.value #>> '{}' ~ '[\r\n]'
        ) THEN 'a header''s name is not one, or its value is not a text of one line'
        ELSE NULL
    END;
    IF wrong IS NOT NULL THEN
        RAISE EXCEPTION 'onceward: %', wrong USING ERRCODE = 'invalid_parameter_value';
    END IF;
    LOOP
        INSERT INTO onceward.outbox (route, key, body, method, path, headers, subject, sequence, not_before)
        VALUES (enqueue.route, enqueue.key, enqueue.body, enqueue.method, enqueue.path,
            enqueue.headers, enqueue.subject, enqueue.sequence, enqueue.not_before)
        ON CONFLICT (key) DO NOTHING
        RETURNING id INTO row_id;
        IF FOUND THEN
            RETURN row_id;
        END IF;
        SELECT held.id,
            (held.route, held.body, held.method, held.path, held.headers)
                = (enqueue.route, enqueue.body, enqueue.method, enqueue.path, enqueue.headers)
        INTO row_id, is_same
        FROM onceward.outbox AS held WHERE held.key = enqueue.key;
        -- Not found: it was taken away in between, and then there is room.
        IF FOUND THEN
            IF is_same THEN
                RETURN row_id;
            END IF;
            RAISE EXCEPTION 'onceward: the key % is in the outbox already, with another request', enqueue.key
                USING ERRCODE = 'unique_violation', HINT = 'one key is one request: give this one a key of its own';
        END IF;
    END LOOP;
END
$$;

-- The same for a body in JSON, which says so in its headers unless they name another type.
CREATE OR REPLACE FUNCTION onceward.enqueue(
    route text, key text DEFAULT NULL, body text DEFAULT NULL, method text DEFAULT 'POST',
    path text DEFAULT '/', headers jsonb DEFAULT '{}', subject text DEFAULT NULL,
    sequence bigint DEFAULT NULL, not_before timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql AS $$
BEGIN
    IF enqueue.body <> '' AND jsonb_typeof(coalesce(enqueue.headers, '{}')) = 'object' AND NOT EXISTS (
        SELECT FROM jsonb_object_keys(coalesce(enqueue.headers, '{}')) AS name
        WHERE lower(name) = 'content-type'
    ) THEN
        enqueue.headers := coalesce(enqueue.headers, '{}') || '{"content-type": "application/json"}';
    END IF;
    RETURN onceward.enqueue(route, key, convert_to(coalesce(body, ''), 'UTF8'), method, path, headers,
        subject, sequence, not_before);
END
$$;

CREATE OR REPLACE FUNCTION onceward.enqueue(
    route text, key text, body jsonb, method text DEFAULT 'POST', path text DEFAULT '/',
    headers jsonb DEFAULT '{}', subject text DEFAULT NULL, sequence bigint DEFAULT NULL,
    not_before timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE sql AS $$
    SELECT onceward.enqueue(route, key, body::text, method, path, headers, subject, sequence, not_before)
$$;

-- The same by a name without a schema, for what has no dots in the names of functions.
CREATE OR REPLACE FUNCTION onceward_enqueue(
    route text, key text, body bytea, method text DEFAULT 'POST', path text DEFAULT '/',
    headers jsonb DEFAULT '{}', subject text DEFAULT NULL, sequence bigint DEFAULT NULL,
    not_before timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE sql AS $$
    SELECT onceward.enqueue(route, key, body, method, path, headers, subject, sequence, not_before)
$$;

CREATE OR REPLACE FUNCTION onceward_enqueue(
    route text, key text DEFAULT NULL, body text DEFAULT NULL, method text DEFAULT 'POST',
    path text DEFAULT '/', headers jsonb DEFAULT '{}', subject text DEFAULT NULL,
    sequence bigint DEFAULT NULL, not_before timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE sql AS $$
    SELECT onceward.enqueue(route, key, body, method, path, headers, subject, sequence, not_before)
$$;

CREATE OR REPLACE FUNCTION onceward_enqueue(
    route text, key text, body jsonb, method text DEFAULT 'POST', path text DEFAULT '/',
    headers jsonb DEFAULT '{}', subject text DEFAULT NULL, sequence bigint DEFAULT NULL,
    not_before timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE sql AS $$
    SELECT onceward.enqueue(route, key, body, method, path, headers, subject, sequence, not_before)
$$;

INSERT INTO onceward.installed (version) VALUES (1)
ON CONFLICT (one) DO UPDATE SET version = excluded.version, installed_at = now();
