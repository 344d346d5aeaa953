CREATE TABLE IF NOT EXISTS stock (
    product    BIGINT       PRIMARY KEY,
    name       VARCHAR(200) NOT NULL,
    -- Price of one piece in cents.
    unit_price BIGINT       NOT NULL CHECK (unit_price >= 0),
    count      BIGINT       NOT NULL CHECK (count >= 0)
) ENGINE = InnoDB;
