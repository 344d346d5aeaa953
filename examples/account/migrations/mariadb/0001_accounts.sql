CREATE TABLE IF NOT EXISTS accounts (
    user_id BIGINT PRIMARY KEY,
    -- In cents.
    balance BIGINT NOT NULL CHECK (balance >= 0)
) ENGINE = InnoDB;
