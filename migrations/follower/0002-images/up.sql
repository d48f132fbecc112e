-- Images that this node pulled, which it may remove again when the disk fills. What others brought is in no row.
CREATE TABLE images (
    id      TEXT NOT NULL,               -- the content id
    name    TEXT NOT NULL,               -- what it was pulled as; an image may have been pulled by several names
    used_at TEXT NOT NULL,               -- when a container of it was last seen, or a pod last wanted it
    PRIMARY KEY (id, name)
) STRICT;
