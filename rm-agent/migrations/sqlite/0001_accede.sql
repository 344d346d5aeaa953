-- Tables that Accede keeps beside the data of a SQLite database.

-- One row per branch: how to undo it. Written in the branch's own local
-- transaction, deleted once the global transaction has committed.
CREATE TABLE IF NOT EXISTS undo_log (
    xid           INTEGER NOT NULL,
    branch_id     INTEGER NOT NULL,
    -- The row images, in this library's own versioned encoding.
    rollback_info BLOB    NOT NULL,
    -- 0: can be undone. 1: was undone. 2: rolled back before the branch
    -- committed, so that a late commit fails.
    log_status    INTEGER NOT NULL,
    -- Milliseconds since 1970, UTC.
    log_created   INTEGER NOT NULL,
    PRIMARY KEY (xid, branch_id)
) STRICT;

-- Which database this is, and to which cluster it belongs.
CREATE TABLE IF NOT EXISTS accede_meta (
    only_row       INTEGER NOT NULL DEFAULT 1 PRIMARY KEY CHECK (only_row = 1),
    database_id    TEXT    NOT NULL,
    cluster_id     TEXT,
    schema_version INTEGER NOT NULL
) STRICT;

-- A random UUID.
INSERT OR IGNORE INTO accede_meta (only_row, database_id, schema_version)
VALUES (1, lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2)
  || '-' || substr('89ab', 1 + (random() & 3), 1) || substr(hex(randomblob(2)), 2)
  || '-' || hex(randomblob(6))), 1);
