-- Two instances may start at once: the second waits and finds all done.
SELECT pg_advisory_xact_lock(7302);

CREATE TABLE IF NOT EXISTS accounts (
    user_id bigint PRIMARY KEY,
    -- In cents.
    balance bigint NOT NULL CHECK (balance >= 0),
    -- Taken out of balance by orders that are not decided yet; where it is frozen.
    frozen  bigint NOT NULL DEFAULT 0 CHECK (frozen >= 0)
);
