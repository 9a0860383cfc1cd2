-- Schema of the embedded store, version 1 (PRAGMA user_version). Run by `million-rps migrate` and by the first start, and
-- followed by the steps to later versions.

-- Ids are the 16 bytes of the UUID, times are microseconds since 1970-01-01T00:00:00Z: half the size of text, and a batch
-- is applied in two thirds of the time. The view todos_readable shows both as text.
CREATE TABLE todos (
    id          BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    title       TEXT    NOT NULL,
    description TEXT    NOT NULL,
    completed   INTEGER NOT NULL CHECK (completed IN (0, 1)),
    user_id     TEXT    NOT NULL,
    created_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

-- The list is read newest first.
CREATE INDEX todos_newest_first ON todos (created_at DESC, id DESC);

-- How far each partition of the command log has been applied: the offset of the next record.
CREATE TABLE applied_offsets (
    partition   INTEGER NOT NULL PRIMARY KEY,
    next_offset INTEGER NOT NULL
) STRICT;

-- For people: sqlite3 todos.sqlite 'SELECT * FROM todos_readable LIMIT 10'
CREATE VIEW todos_readable AS
SELECT lower(substr(hex(id), 1, 8) || '-' || substr(hex(id), 9, 4) || '-' || substr(hex(id), 13, 4) || '-'
             || substr(hex(id), 17, 4) || '-' || substr(hex(id), 21)) AS id,
       title, description, completed, user_id,
       strftime('%Y-%m-%dT%H:%M:%SZ', created_at / 1000000, 'unixepoch') AS created_at,
       strftime('%Y-%m-%dT%H:%M:%SZ', updated_at / 1000000, 'unixepoch') AS updated_at
FROM todos
ORDER BY todos.created_at DESC, todos.id DESC;
