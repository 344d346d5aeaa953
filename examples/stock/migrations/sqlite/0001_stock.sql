CREATE TABLE IF NOT EXISTS stock (
    product    INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    -- Price of one piece in cents.
    unit_price INTEGER NOT NULL CHECK (unit_price >= 0),
    count      INTEGER NOT NULL CHECK (count >= 0)
) STRICT;
