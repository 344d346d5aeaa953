-- Tables that Accede keeps beside the data of a MariaDB database.

-- One row per branch: how to undo it. Written in the branch's own local
-- transaction, deleted once the global transaction has committed.
CREATE TABLE IF NOT EXISTS undo_log (
    xid           BIGINT      NOT NULL,
    branch_id     INT         NOT NULL,
    -- The row images, in this library's own versioned encoding.
    rollback_info LONGBLOB    NOT NULL,
    -- 0: can be undone. 1: was undone. 2: rolled back before the branch
    -- committed, so that a late commit fails.
    log_status    SMALLINT    NOT NULL,
    -- UTC.
    log_created   DATETIME(6) NOT NULL,
    PRIMARY KEY (xid, branch_id)
) ENGINE = InnoDB;

-- Which database this is, and to which cluster it belongs.
CREATE TABLE IF NOT EXISTS accede_meta (
    only_row       BOOLEAN  NOT NULL DEFAULT TRUE PRIMARY KEY CHECK (only_row = TRUE),
    database_id    CHAR(36) CHARACTER SET ascii NOT NULL,
    cluster_id     CHAR(36) CHARACTER SET ascii,
    schema_version INT      NOT NULL
) ENGINE = InnoDB;

INSERT IGNORE INTO accede_meta (database_id, schema_version) VALUES (UUID(), 1);
