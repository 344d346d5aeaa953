CREATE TABLE IF NOT EXISTS accounts (
    user_id INTEGER PRIMARY KEY,
    -- In cents.
    balance INTEGER NOT NULL CHECK (balance >= 0),
    -- Taken out of balance by orders that are not decided yet; where it is frozen.
    frozen  INTEGER NOT NULL DEFAULT 0 CHECK (frozen >= 0)
) STRICT;
