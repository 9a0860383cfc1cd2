-- Schema of the embedded store, version 4: the log whose offsets these are. The program puts the one row there.
CREATE TABLE followed_log (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    id       BLOB    NOT NULL CHECK (length(id) = 16)
) STRICT;
