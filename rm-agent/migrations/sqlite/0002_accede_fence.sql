-- For branches whose end is the application's own code or the database's own, not an undo record.

-- One row per branch: how far it is. Written in the local transaction that does the work, so that
-- each step takes effect once, and none comes too late. Deleted some time after the global
-- transaction has ended.
CREATE TABLE IF NOT EXISTS accede_fence (
    xid       INTEGER NOT NULL,
    branch_id INTEGER NOT NULL,
    -- 0: tried. 1: confirmed. 2: cancelled. 3: cancelled before it was tried, so
    -- that a late try fails.
    status    INTEGER NOT NULL,
    -- The action, for people.
    resource  TEXT    NOT NULL,
    -- When it got its status, in milliseconds since 1970, UTC.
    created   INTEGER NOT NULL,
    -- What later steps need: the result of a step of a saga, the arguments of a vote.
    payload   BLOB,
    PRIMARY KEY (xid, branch_id)
) STRICT;

-- What participants of 3PC have promised and not ended: they look after it every few seconds,
-- among all that was ended and is still here.
CREATE INDEX IF NOT EXISTS accede_fence_open ON accede_fence (resource, created)
    WHERE payload IS NOT NULL AND status IN (0, 4);
