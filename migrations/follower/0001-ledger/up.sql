-- Single values: node_id, cluster_id, epoch, generation, starts. `generation` is there once a complete assignment was taken.
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

-- Every pod that this node runs, stops, or has stopped without the leader having let go of it.
CREATE TABLE pods (
    uid      TEXT PRIMARY KEY,
    assigned TEXT NOT NULL,              -- AssignedPod as JSON
    current  INTEGER NOT NULL,           -- whether the newest assignment has it
    record   TEXT NOT NULL               -- PodRecord as JSON
) STRICT;

-- Events that the leader has not accepted. AUTOINCREMENT: a sequence is never used twice, also when the table was empty.
CREATE TABLE outbox (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    uid      TEXT NOT NULL,
    pod      TEXT NOT NULL,
    kind     TEXT NOT NULL,              -- EventKind as JSON
    reason   TEXT NOT NULL,
    message  TEXT NOT NULL,
    at       TEXT NOT NULL,
    dropped  INTEGER NOT NULL DEFAULT 0  -- how many events this row stands for, if it stands for dropped ones
) STRICT;
