-- The leader's state. Times are INTEGER microseconds since 1970-01-01 UTC; the parts of a resource are JSON as the API shows them, with a
-- column beside them for what is constrained or searched.

-- One row: who this cluster is, how often its leader was started, the last revision that a committed write got.
CREATE TABLE meta (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    cluster_id TEXT    NOT NULL,
    epoch      INTEGER NOT NULL,
    revision   INTEGER NOT NULL
) STRICT;

CREATE TABLE pods (
    uid             TEXT    PRIMARY KEY,
    name            TEXT    NOT NULL,
    revision        INTEGER NOT NULL,
    node            TEXT,
    restarts        INTEGER NOT NULL,
    -- The sequence of the newest report that its node made of it.
    report_sequence INTEGER NOT NULL,
    -- JSON of why and how it is to be stopped, once it is.
    retired         TEXT,
    metadata        TEXT    NOT NULL,
    spec            TEXT    NOT NULL,
    placement       TEXT    NOT NULL,
    status          TEXT    NOT NULL
) STRICT;

-- A name has one live pod; those on their way out may keep it beside.
CREATE UNIQUE INDEX pods_live_name ON pods (name) WHERE retired IS NULL;

CREATE TABLE nodes (
    name       TEXT    PRIMARY KEY,
    node_id    TEXT    NOT NULL,
    machine_id TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    -- Why the node itself says that it can't start pods.
    trouble    TEXT,
    node       TEXT    NOT NULL
) STRICT;

-- How far each data folder's events are stored: each is taken once, however often it is sent.
CREATE TABLE node_sequences (
    node_id        TEXT    PRIMARY KEY,
    events_through INTEGER NOT NULL
) STRICT;

CREATE TABLE events (
    id       INTEGER PRIMARY KEY,
    object   TEXT    NOT NULL,
    -- Empty for nodes: NULLs would all differ in the index.
    uid      TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    reason   TEXT    NOT NULL,
    message  TEXT    NOT NULL,
    count    INTEGER NOT NULL,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL,
    source   TEXT    NOT NULL,
    revision INTEGER NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_same ON events (object, uid, reason, message);
CREATE INDEX events_by_object ON events (object, revision);
CREATE INDEX events_by_revision ON events (revision);
CREATE INDEX events_by_age ON events (last_at);
