CREATE TABLE IF NOT EXISTS stock (
    product    BIGINT       PRIMARY KEY,
    name       VARCHAR(200) NOT NULL,
    -- Price of one piece in cents.
    unit_price BIGINT       NOT NULL CHECK (unit_price >= 0),
    count      BIGINT       NOT NULL CHECK (count >= 0),
    -- Taken out of count by orders that are not decided yet; where they are frozen.
    frozen     BIGINT       NOT NULL DEFAULT 0 CHECK (frozen >= 0),
    -- In the mode mixed: to be promised in 3PC, as seats are.
    promised   BOOLEAN      NOT NULL DEFAULT FALSE
) ENGINE = InnoDB;
