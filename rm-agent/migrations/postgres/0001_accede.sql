-- Tables that Accede keeps beside the data of a PostgreSQL database.

-- One row per branch: how to undo it. Written in the branch's own local
-- transaction, deleted once the global transaction has committed.
CREATE TABLE IF NOT EXISTS undo_log (
    xid           bigint      NOT NULL,
    branch_id     integer     NOT NULL,
    -- The row images, in this library's own versioned encoding.
    rollback_info bytea       NOT NULL,
    -- 0: can be undone. 1: was undone. 2: rolled back before the branch
    -- committed, so that a late commit fails.
    log_status    smallint    NOT NULL,
    log_created   timestamptz NOT NULL,
    PRIMARY KEY (xid, branch_id)
);

-- Which database this is, and to which cluster it belongs.
CREATE TABLE IF NOT EXISTS accede_meta (
    only_row       boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    database_id    uuid    NOT NULL DEFAULT gen_random_uuid(),
    cluster_id     uuid,
    schema_version integer NOT NULL
);

INSERT INTO accede_meta (schema_version) VALUES (1) ON CONFLICT (only_row) DO NOTHING;
