-- The resources that the leader keeps by itself: all but pods and nodes. `object` is JSON with its type, as the API answers it, a secret with its values.
CREATE TABLE objects (
    uid      TEXT    PRIMARY KEY,
    type     TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    object   TEXT    NOT NULL
) STRICT;

CREATE UNIQUE INDEX objects_name ON objects (type, name);
