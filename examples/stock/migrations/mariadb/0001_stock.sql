CREATE TABLE IF NOT EXISTS stock (
    product    BIGINT       PRIMARY KEY,
    name       VARCHAR(200) NOT NULL,
    -- Price of one piece in cents.
    unit_price BIGINT       NOT NULL CHECK (unit_price >= 0),
    count      BIGINT       NOT NULL CHECK (count >= 0),
    -- Taken out of count by orders that are not decided yet; in TCC only.
    frozen     BIGINT       NOT NULL DEFAULT 0 CHECK (frozen >= 0)
) ENGINE = InnoDB;
