CREATE TABLE IF NOT EXISTS stock (
    product    INTEGER PRIMARY KEY,
    name       TEXT    NOT NULL,
    -- Price of one piece in cents.
    unit_price INTEGER NOT NULL CHECK (unit_price >= 0),
    count      INTEGER NOT NULL CHECK (count >= 0),
    -- Taken out of count by orders that are not decided yet; where they are frozen.
    frozen     INTEGER NOT NULL DEFAULT 0 CHECK (frozen >= 0),
    -- In the mode mixed: to be promised in 3PC, as seats are.
    promised   INTEGER NOT NULL DEFAULT FALSE
) STRICT;
