-- Schema of the PostgreSQL store. `million-rps migrate` runs this file; so may anybody:
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -f src/store/postgres/schema.sql
--
-- It may run any number of times, also from several places at once, and it upgrades the table `todos` of the original
-- system in place.
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0;

-- Runs of this file wait for each other. The number is "million" in a phone's letters; it only has to be the same.
DO $$ BEGIN PERFORM pg_advisory_xact_lock(6455466); END $$;

-- Ids are compared byte by byte (collation "C"), which is how the API sorts them. The check keeps out what the API could
-- not name in a URI.
CREATE TABLE IF NOT EXISTS todos (
    id text COLLATE "C" PRIMARY KEY
        CONSTRAINT todos_id_is_a_uuid CHECK (id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'),
    title text NOT NULL,
    description text NOT NULL DEFAULT '',
    completed boolean NOT NULL DEFAULT false,
    user_id text NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);

-- A table of the original (ids as uuid or varchar, columns that may be null, times perhaps without a zone: those are
-- UTC) gets the columns above. A table that has them already is not touched, nor rewritten.
DO $$
DECLARE
    todos regclass := 'todos'::regclass;
    wanted record;
    is_text boolean;
    strangers bigint;
    stranger text;
BEGIN
    ALTER TABLE todos ADD COLUMN IF NOT EXISTS description text;
    ALTER TABLE todos ADD COLUMN IF NOT EXISTS completed boolean;
    ALTER TABLE todos ADD COLUMN IF NOT EXISTS user_id text;
    ALTER TABLE todos ADD COLUMN IF NOT EXISTS created_at timestamptz;
    ALTER TABLE todos ADD COLUMN IF NOT EXISTS updated_at timestamptz;

    SELECT a.atttypid = 'text'::regtype AND c.collname = 'C' INTO is_text
        FROM pg_attribute a LEFT JOIN pg_collation c ON c.oid = a.attcollation
        WHERE a.attrelid = todos AND a.attname = 'id';
    IF NOT coalesce(is_text, false) OR NOT EXISTS (
        SELECT FROM pg_constraint WHERE conrelid = todos AND conname = 'todos_id_is_a_uuid')
    THEN
        SELECT count(*), min(id::text) INTO strangers, stranger FROM todos
            WHERE lower(id::text) !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
        IF strangers > 0 THEN
            RAISE EXCEPTION 'todos has % rows whose id is no UUID, for example "%"', strangers, stranger
                USING HINT = 'Give them one, for example: UPDATE todos SET id = gen_random_uuid()::text WHERE id = ''...''';
        END IF;
        SELECT count(*), min(ids) INTO strangers, stranger FROM (
            SELECT string_agg(id::text, '" and "' ORDER BY id::text) AS ids FROM todos
            GROUP BY lower(id::text) HAVING count(*) > 1) AS twins;
        IF strangers > 0 THEN
            RAISE EXCEPTION 'todos has % ids in several rows that differ only in upper and lower case, for example "%"',
                    strangers, stranger
                USING HINT = 'They are the same UUID. Delete one of the rows, or give it another id: '
                    'UPDATE todos SET id = gen_random_uuid()::text WHERE id = ''...''';
        END IF;
        ALTER TABLE todos ALTER COLUMN id DROP DEFAULT;
        ALTER TABLE todos ALTER COLUMN id TYPE text COLLATE "C" USING lower(id::text);
        ALTER TABLE todos DROP CONSTRAINT IF EXISTS todos_id_is_a_uuid;
        ALTER TABLE todos ADD CONSTRAINT todos_id_is_a_uuid
            CHECK (id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$');
    END IF;
    IF NOT EXISTS (SELECT FROM pg_constraint WHERE conrelid = todos AND contype = 'p') THEN
        ALTER TABLE todos ADD PRIMARY KEY (id);
    END IF;

    FOR wanted IN SELECT * FROM (VALUES
        ('title', 'text', '%I::text', ''''''),
        ('description', 'text', '%I::text', ''''''),
        ('completed', 'boolean', '%I::boolean', 'false'),
        ('user_id', 'text', '%I::text', ''''''),
        ('created_at', 'timestamp with time zone', '%I AT TIME ZONE ''UTC''', 'now()'),
        ('updated_at', 'timestamp with time zone', '%I AT TIME ZONE ''UTC''', 'created_at')
    ) AS t (name, type, conversion, otherwise)
    LOOP
        IF EXISTS (SELECT FROM pg_attribute
            WHERE attrelid = todos AND attname = wanted.name AND format_type(atttypid, NULL) <> wanted.type)
        THEN
            EXECUTE format('ALTER TABLE todos ALTER COLUMN %I DROP DEFAULT', wanted.name);
            EXECUTE format('ALTER TABLE todos ALTER COLUMN %I TYPE %s USING ' || wanted.conversion,
                wanted.name, wanted.type, wanted.name);
        END IF;
        -- A length in the original's type (varchar(500)) went with the type; the API checks lengths itself.
        IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = todos AND attname = wanted.name AND NOT attnotnull) THEN
            EXECUTE format('UPDATE todos SET %I = %s WHERE %I IS NULL', wanted.name, wanted.otherwise, wanted.name);
            EXECUTE format('ALTER TABLE todos ALTER COLUMN %I SET NOT NULL', wanted.name);
        END IF;
    END LOOP;
END $$;

-- The order of the list: a process that loads it reads along this index.
CREATE INDEX IF NOT EXISTS todos_newest_first ON todos (created_at DESC, id DESC);

-- How far the command log has been applied: `next` is the offset of the next record. Moves in the same transaction as
-- the rows, by compare-and-set. One database may serve several topics. The row of partition -1 says that a topic is
-- followed, though nothing of it may have been applied; without it and without offsets, nothing is known of a topic. The
-- rows of partitions -2 and -3 are the higher and the lower half of Kafka's id of the topic that the offsets belong to: a
-- topic that is made anew under the name has another one. The rows -4 and -5, -6 and -7 and so on are those of topics that
-- the offsets cannot be of: they ended before them while there was no id to go by. The row -1000000 - p is of partition p: the
-- epoch of the leader that wrote the last applied record, times 2^40, and the low 40 bits of the offset behind that record.
CREATE TABLE IF NOT EXISTS applied_offsets (
    topic text COLLATE "C" NOT NULL,
    partition integer NOT NULL,
    next bigint NOT NULL,
    PRIMARY KEY (topic, partition)
);

-- The identity of the deployment: made once, shared by all processes that work with this database. `id` tells it from
-- others, keys are derived from `secret`. Each call brings 122 random bits.
CREATE TABLE IF NOT EXISTS deployment (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id uuid NOT NULL,
    secret bytea NOT NULL CHECK (length(secret) = 32)
);
INSERT INTO deployment (id, secret)
    SELECT gen_random_uuid(),
        sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
    WHERE NOT EXISTS (SELECT FROM deployment)
    ON CONFLICT DO NOTHING;
COMMIT;
