-- For branches whose end is the application's own code or the database's own, not an undo record.

-- One row per branch: how far it is. Written in the local transaction that does the work, so that
-- each step takes effect once, and none comes too late. Deleted some time after the global
-- transaction has ended.
CREATE TABLE IF NOT EXISTS accede_fence (
    xid       BIGINT       NOT NULL,
    branch_id INT          NOT NULL,
    -- 0: tried. 1: confirmed. 2: cancelled. 3: cancelled before it was tried, so
    -- that a late try fails.
    status    SMALLINT     NOT NULL,
    -- The action, for people.
    resource  VARCHAR(128) CHARACTER SET utf8mb4 NOT NULL,
    -- When it got its status. UTC.
    created   DATETIME(6)  NOT NULL,
    -- What later steps need: the result of a step of a saga, the arguments of a vote.
    payload   MEDIUMBLOB,
    PRIMARY KEY (xid, branch_id)
) ENGINE = InnoDB;

-- What participants of 3PC have promised and not ended: they look after it every few seconds,
-- among all that was ended and is still here.
CREATE INDEX IF NOT EXISTS accede_fence_open ON accede_fence (resource, status, created);
