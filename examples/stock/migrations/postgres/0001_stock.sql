-- Two instances may start at once: the second waits and finds all done.
SELECT pg_advisory_xact_lock(7301);

CREATE TABLE IF NOT EXISTS stock (
    product    bigint PRIMARY KEY,
    name       text   NOT NULL,
    -- Price of one piece in cents.
    unit_price bigint NOT NULL CHECK (unit_price >= 0),
    count      bigint NOT NULL CHECK (count >= 0),
    -- Taken out of count by orders that are not decided yet; where they are frozen.
    frozen     bigint NOT NULL DEFAULT 0 CHECK (frozen >= 0),
    -- In the mode mixed: to be promised in 3PC, as seats are.
    promised   boolean NOT NULL DEFAULT false
);
