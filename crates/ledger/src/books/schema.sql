-- The books: one file for all sales. Every row follows from a chain; `sale` is the shop's name of the sale.

-- Where each service stands in each chain; committed with the effects, so that every record takes effect exactly once.
CREATE TABLE offsets (
    service TEXT NOT NULL,
    sale    TEXT NOT NULL,
    next    INTEGER NOT NULL,             -- number of the first record not yet applied
    head    BLOB NOT NULL,                -- the chain's hash before that record
    PRIMARY KEY (service, sale)
) WITHOUT ROWID;

-- What a sale's `created` record says once for all its orders.
CREATE TABLE sales (
    sale     TEXT NOT NULL PRIMARY KEY,
    currency TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE orders (
    sale           TEXT NOT NULL,
    number         INTEGER NOT NULL,      -- the purchase's running number in its sale, from 0
    purchase       BLOB NOT NULL,         -- 12 bytes, without sale and MAC
    customer       BLOB NOT NULL,         -- 16 bytes, the pseudonym
    item           INTEGER NOT NULL,      -- index in the sale's definition
    quantity       INTEGER NOT NULL,
    units          BLOB NOT NULL,         -- per unit: number, generation, each 32 bits little-endian; a released order keeps them
    price          INTEGER NOT NULL,      -- minor units for all units together
    currency       TEXT NOT NULL,
    status         TEXT NOT NULL CHECK (status IN ('held', 'confirmed', 'released')),
    release_reason TEXT NULL,             -- null again when the order was retaken
    held_at        INTEGER NOT NULL,      -- this and the times below: chain time, Unix milliseconds
    pay_by         INTEGER NOT NULL,      -- the record's, plus every clock credit given while the hold was open
    ended_at       INTEGER NULL,          -- of the last record that ended it
    record         INTEGER NOT NULL,      -- number of the `held` record
    PRIMARY KEY (sale, number)
) WITHOUT ROWID;

-- Units per item; free + held + sold + withdrawn is the item's total (INV-1).
CREATE TABLE inventory (
    sale      TEXT NOT NULL,
    item      INTEGER NOT NULL,
    name      TEXT NOT NULL,
    free      INTEGER NOT NULL,
    held      INTEGER NOT NULL,
    sold      INTEGER NOT NULL,
    withdrawn INTEGER NOT NULL,
    PRIMARY KEY (sale, item)
) WITHOUT ROWID;

-- Records that could not be believed or read, with their public bytes. Nobody waits for them.
CREATE TABLE parked (
    id       INTEGER PRIMARY KEY,
    service  TEXT NOT NULL,
    sale     TEXT NOT NULL,
    record   INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    evidence BLOB NOT NULL,
    at       INTEGER NOT NULL             -- chain time
);
