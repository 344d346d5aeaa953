CREATE TABLE IF NOT EXISTS orders (
    id        BIGINT       AUTO_INCREMENT PRIMARY KEY,
    -- The customer's own name for the order: as it is written, to the letter.
    reference VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin NOT NULL UNIQUE,
    user_id   BIGINT       NOT NULL,
    -- In cents.
    paid      BIGINT       NOT NULL CHECK (paid >= 0)
) ENGINE = InnoDB;

CREATE TABLE IF NOT EXISTS order_items (
    order_id BIGINT NOT NULL REFERENCES orders (id),
    position BIGINT NOT NULL,
    product  BIGINT NOT NULL,
    count    BIGINT NOT NULL CHECK (count > 0),
    PRIMARY KEY (order_id, position)
) ENGINE = InnoDB;

-- What was packed for an order; in the mode mixed only.
CREATE TABLE IF NOT EXISTS parcels (
    reference VARCHAR(200) CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin PRIMARY KEY,
    pieces    BIGINT       NOT NULL CHECK (pieces > 0)
) ENGINE = InnoDB;
