CREATE TABLE IF NOT EXISTS accounts (
    user_id BIGINT PRIMARY KEY,
    -- In cents.
    balance BIGINT NOT NULL CHECK (balance >= 0),
    -- Taken out of balance by orders that are not decided yet; where it is frozen.
    frozen  BIGINT NOT NULL DEFAULT 0 CHECK (frozen >= 0)
) ENGINE = InnoDB;
