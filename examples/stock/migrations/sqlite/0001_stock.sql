CREATE TABLE IF NOT EXISTS stock (
    product    INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    -- Price of one piece in cents.
    unit_price INTEGER NOT NULL CHECK (unit_price >= 0),
    count      INTEGER NOT NULL CHECK (count >= 0),
    -- Taken out of count by orders that are not decided yet; in TCC only.
    frozen     INTEGER NOT NULL DEFAULT 0 CHECK (frozen >= 0)
) STRICT;
