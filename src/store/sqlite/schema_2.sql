-- Schema of the embedded store, version 2: the index of the list's order grows at its end. SQLite fills the pages of an index
-- that grows at its end; those of one that grows at its beginning stay half empty, and to split them it numbers pages
-- beyond the end of the file for a moment, for which each commit then goes through the page cache. The list, newest first,
-- is read from the end backwards.
DROP INDEX todos_newest_first;
CREATE INDEX todos_by_age ON todos (created_at, id);
