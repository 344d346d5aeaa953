CREATE TABLE IF NOT EXISTS accounts (
    user_id INTEGER PRIMARY KEY,
    -- In cents.
    balance INTEGER NOT NULL CHECK (balance >= 0)
) STRICT;
