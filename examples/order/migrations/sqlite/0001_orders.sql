CREATE TABLE IF NOT EXISTS orders (
    -- With AUTOINCREMENT no number is given twice, also when an order was undone.
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The customer's own name for the order.
    reference TEXT    NOT NULL UNIQUE,
    user_id   INTEGER NOT NULL,
    -- In cents.
    paid      INTEGER NOT NULL CHECK (paid >= 0)
) STRICT;

CREATE TABLE IF NOT EXISTS order_items (
    order_id INTEGER NOT NULL REFERENCES orders (id),
    position INTEGER NOT NULL,
    product  INTEGER NOT NULL,
    count    INTEGER NOT NULL CHECK (count > 0),
    PRIMARY KEY (order_id, position)
) STRICT;

-- What was packed for an order; in the mode mixed only.
CREATE TABLE IF NOT EXISTS parcels (
    reference TEXT    PRIMARY KEY,
    pieces    INTEGER NOT NULL CHECK (pieces > 0)
) STRICT;
