-- The vault in PostgreSQL: the tables of the SQLite vault, in a schema of their own. Primary data, backed up, never rebuilt.

CREATE TABLE vault.schema_version (
    version BIGINT NOT NULL               -- one row
);

-- Whose vault it is: the sales of two clusters in one vault would share their keys.
CREATE TABLE vault.cluster (
    name TEXT COLLATE "C" NOT NULL        -- one row
);

CREATE TABLE vault.deployment_keys (
    purpose    TEXT COLLATE "C" NOT NULL CHECK (purpose IN ('pass', 'id', 'identity_hash')),
    key_id     BIGINT NOT NULL,           -- 0 to 255; only pass keys rotate
    active     BOOLEAN NOT NULL,          -- true for the pass key that signs; all of them verify
    secret     BYTEA NOT NULL,
    created_at BIGINT NOT NULL,           -- all times: Unix milliseconds
    PRIMARY KEY (purpose, key_id)
);

CREATE TABLE vault.sales (
    ordinal       BIGINT PRIMARY KEY,     -- from 1, without gaps
    name          TEXT COLLATE "C" NOT NULL UNIQUE,
    sale_id       BYTEA NOT NULL,
    slot_secret   BYTEA NOT NULL,
    pseudonym_key BYTEA NOT NULL,
    signing_seed  BYTEA NOT NULL,
    created_at    BIGINT NOT NULL,
    anonymised_at BIGINT                 -- null while its customers are known; then the pseudonym key is another one
);

-- Text is compared by its bytes: an order that comes from the system's locale changes with it, and takes the index along.
CREATE TABLE vault.customers (
    id         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    issuer     TEXT COLLATE "C" NOT NULL,
    subject    TEXT COLLATE "C" NOT NULL,
    secret     BYTEA NOT NULL,            -- the customer's key, 32 bytes
    UNIQUE (subject, issuer)              -- the subject first: it tells rows apart sooner
);

-- Who stands behind a pseudonym.
CREATE TABLE vault.map (
    ordinal   BIGINT NOT NULL,
    pseudonym BYTEA NOT NULL,
    customer  BIGINT NOT NULL REFERENCES vault.customers (id),
    PRIMARY KEY (ordinal, pseudonym)
);

-- How often customers were erased, alone or with a sale, so that whoever remembers customers notices.
CREATE TABLE vault.erasures (
    count BIGINT NOT NULL                    -- one row
);
INSERT INTO vault.erasures (count) VALUES (0);

-- What a sale's page shows beside its definition, as JSON that the vault does not look into.
CREATE TABLE vault.showcases (
    ordinal  BIGINT PRIMARY KEY,
    settings TEXT NOT NULL
);

-- The files of the pictures beside items.
CREATE TABLE vault.pictures (
    ordinal BIGINT NOT NULL,
    item    BIGINT NOT NULL,              -- its place in the sale's definition
    width   BIGINT NOT NULL,
    format  TEXT NOT NULL,
    id      TEXT NOT NULL,                -- of the whole picture; made of its bytes, so the same picture has the same id twice
    height  BIGINT NOT NULL,
    bytes   BYTEA NOT NULL,
    PRIMARY KEY (ordinal, item, width, format)
);
CREATE INDEX pictures_by_id ON vault.pictures (id);

-- The human checks of the sales that have one, by name.
CREATE TABLE vault.human_checks (
    ordinal BIGINT PRIMARY KEY,
    name    TEXT NOT NULL
);

-- How often a showcase, a picture or a human check was changed, so that whoever remembers them notices.
CREATE TABLE vault.showcase_changes (
    count BIGINT NOT NULL                    -- one row
);
INSERT INTO vault.showcase_changes (count) VALUES (0);

-- Who is refused, until when and why. A customer stands here as a keyed hash.
CREATE TABLE vault.blocks (
    id         TEXT PRIMARY KEY,          -- made of kind and target
    kind       TEXT NOT NULL CHECK (kind IN ('address', 'customer')),
    target     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    made_by    TEXT NOT NULL,             -- the id of an admin token
    created_at BIGINT NOT NULL,
    expires_at BIGINT NULL                    -- null: not by itself
);

-- How often the block list was changed, so that whoever remembers it notices.
CREATE TABLE vault.block_changes (
    count BIGINT NOT NULL                     -- one row
);
INSERT INTO vault.block_changes (count) VALUES (0);

CREATE TABLE vault.admin_tokens (
    hash       BYTEA NOT NULL PRIMARY KEY, -- SHA-256 of the token
    label      TEXT NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'cashier', 'owner')),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NULL                 -- null: never
);
