-- The books: one file for all sales. Every row follows from a chain; `sale` is the shop's name of the sale. A service keeps tables of its
-- own, which no other reads. These statements also bring the books of an earlier version up: a table that comes new is filled from the
-- chain's beginning, since its service has no offset yet.

-- Where each service stands in each chain; committed with the effects, so that every record takes effect exactly once.
CREATE TABLE IF NOT EXISTS offsets (
    service TEXT NOT NULL,
    sale    TEXT NOT NULL,
    next    INTEGER NOT NULL,             -- number of the first record not yet applied
    head    BLOB NOT NULL,                -- the chain's hash before that record
    PRIMARY KEY (service, sale)
) WITHOUT ROWID;

-- orders: what a sale's `created` record says once for all its orders.
CREATE TABLE IF NOT EXISTS sales (
    sale     TEXT NOT NULL PRIMARY KEY,
    currency TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS orders (
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
CREATE TABLE IF NOT EXISTS inventory (
    sale      TEXT NOT NULL,
    item      INTEGER NOT NULL,
    name      TEXT NOT NULL,
    free      INTEGER NOT NULL,
    held      INTEGER NOT NULL,
    sold      INTEGER NOT NULL,
    withdrawn INTEGER NOT NULL,
    PRIMARY KEY (sale, item)
) WITHOUT ROWID;

-- payment: what it keeps of each sale and each hold.
CREATE TABLE IF NOT EXISTS payment_sales (
    sale     TEXT NOT NULL PRIMARY KEY,
    currency TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS payment_orders (
    sale     TEXT NOT NULL,
    number   INTEGER NOT NULL,
    purchase BLOB NOT NULL,
    customer BLOB NOT NULL,
    price    INTEGER NOT NULL,
    PRIMARY KEY (sale, number)
) WITHOUT ROWID;

-- payment: attempts to pay an order at a provider.
CREATE TABLE IF NOT EXISTS payments (
    sale       TEXT NOT NULL,
    number     INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,          -- from 0
    status     TEXT NOT NULL CHECK (status IN ('open', 'ended', 'paid', 'refund_due', 'refunded')),
    amount     INTEGER NOT NULL,          -- minor units: the order's price
    currency   TEXT NOT NULL,
    begun_at   INTEGER NOT NULL,          -- chain time
    changed_at INTEGER NOT NULL,          -- chain time of the last change
    record     INTEGER NOT NULL,          -- number of the record of the last change
    PRIMARY KEY (sale, number, attempt)
) WITHOUT ROWID;

-- payment: what a provider reported and nobody believed; for people to look at.
CREATE TABLE IF NOT EXISTS payments_parked (
    sale      TEXT NOT NULL,
    record    INTEGER NOT NULL,
    number    INTEGER NOT NULL,           -- the order
    reason    TEXT NOT NULL,
    evidence  INTEGER NOT NULL,
    amount    INTEGER NOT NULL,
    currency  TEXT NOT NULL,
    reference TEXT NOT NULL,              -- the provider's
    at        INTEGER NOT NULL,
    PRIMARY KEY (sale, record)
) WITHOUT ROWID;

-- coupon: the coupons of a sale, and the holds that came with one.
CREATE TABLE IF NOT EXISTS coupons (
    sale       TEXT NOT NULL,
    coupon     INTEGER NOT NULL,          -- index in the definition
    hash       INTEGER NOT NULL,          -- of its code, as the chain has it
    percent    INTEGER NOT NULL,
    uses_max   INTEGER NOT NULL,
    used       INTEGER NOT NULL,          -- by live orders
    used_ever  INTEGER NOT NULL,          -- each hold and each one taken again
    given_back INTEGER NOT NULL,          -- by released orders; used + given_back is used_ever
    PRIMARY KEY (sale, coupon)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS coupon_orders (
    sale     TEXT NOT NULL,
    number   INTEGER NOT NULL,
    purchase BLOB NOT NULL,
    coupon   INTEGER NOT NULL,
    status   TEXT NOT NULL CHECK (status IN ('held', 'confirmed', 'released')),
    PRIMARY KEY (sale, number)
) WITHOUT ROWID;

-- points: what an item gives, the holds of such items, what each customer has, and why.
CREATE TABLE IF NOT EXISTS point_rules (
    sale   TEXT NOT NULL,
    item   INTEGER NOT NULL,
    points INTEGER NOT NULL,              -- per unit; items without points have no row
    PRIMARY KEY (sale, item)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS point_orders (
    sale     TEXT NOT NULL,
    number   INTEGER NOT NULL,
    purchase BLOB NOT NULL,
    customer BLOB NOT NULL,
    points   INTEGER NOT NULL,            -- of all units together
    status   TEXT NOT NULL CHECK (status IN ('held', 'confirmed', 'released')),
    paid_by  INTEGER NULL,                -- the attempt whose money paid the order; null where the shop said so
    PRIMARY KEY (sale, number)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS points (
    sale       TEXT NOT NULL,
    customer   BLOB NOT NULL,             -- the pseudonym
    posted     INTEGER NOT NULL,
    taken_back INTEGER NOT NULL,          -- at refunds
    shortfall  INTEGER NOT NULL,          -- what refunds should have taken back and was not there
    PRIMARY KEY (sale, customer)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS point_postings (
    sale      TEXT NOT NULL,
    number    INTEGER NOT NULL,
    posting   TEXT NOT NULL CHECK (posting IN ('posted', 'taken_back')),
    points    INTEGER NOT NULL,
    shortfall INTEGER NOT NULL,
    record    INTEGER NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (sale, number, posting)   -- each at most once per order (INV-7)
) WITHOUT ROWID;

-- product: the articles of the shop's catalogue, and the holds of their units.
CREATE TABLE IF NOT EXISTS products (
    sale        TEXT NOT NULL,
    item        INTEGER NOT NULL,
    name        TEXT NOT NULL,
    sku         TEXT NULL,
    external_id TEXT NULL,
    sold        INTEGER NOT NULL,
    free        INTEGER NOT NULL,
    PRIMARY KEY (sale, item)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS product_orders (
    sale     TEXT NOT NULL,
    number   INTEGER NOT NULL,
    purchase BLOB NOT NULL,
    item     INTEGER NOT NULL,
    quantity INTEGER NOT NULL,
    status   TEXT NOT NULL CHECK (status IN ('held', 'confirmed', 'released')),
    PRIMARY KEY (sale, number)
) WITHOUT ROWID;

-- Records that could not be believed or read, with their public bytes. Nobody waits for them.
CREATE TABLE IF NOT EXISTS parked (
    id       INTEGER PRIMARY KEY,
    service  TEXT NOT NULL,
    sale     TEXT NOT NULL,
    record   INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    reason   TEXT NOT NULL,
    evidence BLOB NOT NULL,
    at       INTEGER NOT NULL             -- chain time
);
