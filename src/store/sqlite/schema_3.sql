-- Schema of the embedded store, version 3: the identity of the deployment. The program puts the one row there.
CREATE TABLE deployment (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    id       BLOB    NOT NULL CHECK (length(id) = 16),
    secret   BLOB    NOT NULL CHECK (length(secret) = 32)
) STRICT;
