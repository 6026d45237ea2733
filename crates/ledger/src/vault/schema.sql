-- The vault: primary data of the deployment. Synced before anything rests on it, backed up, never rebuilt.

CREATE TABLE deployment_keys (
    purpose    TEXT NOT NULL CHECK (purpose IN ('pass', 'id', 'identity_hash')),
    key_id     INTEGER NOT NULL,          -- 0 to 255; only pass keys rotate
    active     INTEGER NOT NULL,          -- 1 for the pass key that signs; all of them verify
    secret     BLOB NOT NULL,
    created_at INTEGER NOT NULL,          -- all times: Unix milliseconds
    PRIMARY KEY (purpose, key_id)
) WITHOUT ROWID;

CREATE TABLE sales (
    ordinal       INTEGER PRIMARY KEY,    -- from 1
    name          TEXT NOT NULL UNIQUE,
    sale_id       BLOB NOT NULL,
    slot_secret   BLOB NOT NULL,
    pseudonym_key BLOB NOT NULL,
    signing_seed  BLOB NOT NULL,
    created_at    INTEGER NOT NULL,
    anonymised_at INTEGER                 -- null while its customers are known; then the pseudonym key is another one
);

CREATE TABLE customers (
    id         INTEGER PRIMARY KEY,
    issuer     TEXT NOT NULL,
    subject    TEXT NOT NULL,
    secret     BLOB NOT NULL,             -- the customer's key, 32 bytes
    UNIQUE (subject, issuer)              -- the subject first: it tells rows apart sooner
);

-- Who stands behind a pseudonym.
CREATE TABLE map (
    ordinal   INTEGER NOT NULL,
    pseudonym BLOB NOT NULL,
    customer  INTEGER NOT NULL REFERENCES customers (id),
    PRIMARY KEY (ordinal, pseudonym)
) WITHOUT ROWID;

-- How often customers were erased, alone or with a sale, so that whoever remembers customers notices.
CREATE TABLE erasures (
    count INTEGER NOT NULL                   -- one row
);
INSERT INTO erasures (count) VALUES (0);

-- What a sale's page shows beside its definition, as JSON that the vault does not look into.
CREATE TABLE showcases (
    ordinal  INTEGER PRIMARY KEY,
    settings TEXT NOT NULL
);

-- The files of the pictures beside items.
CREATE TABLE pictures (
    ordinal INTEGER NOT NULL,
    item    INTEGER NOT NULL,             -- its place in the sale's definition
    width   INTEGER NOT NULL,
    format  TEXT NOT NULL,
    id      TEXT NOT NULL,                -- of the whole picture; made of its bytes, so the same picture has the same id twice
    height  INTEGER NOT NULL,
    bytes   BLOB NOT NULL,                -- last, so that a list of pictures does not read it
    PRIMARY KEY (ordinal, item, width, format)
);
CREATE INDEX pictures_by_id ON pictures (id);

-- The human checks of the sales that have one, by name.
CREATE TABLE human_checks (
    ordinal INTEGER PRIMARY KEY,
    name    TEXT NOT NULL
);

-- How often a showcase, a picture or a human check was changed, so that whoever remembers them notices.
CREATE TABLE showcase_changes (
    count INTEGER NOT NULL                   -- one row
);
INSERT INTO showcase_changes (count) VALUES (0);

-- Who is refused, until when and why. A customer stands here as a keyed hash.
CREATE TABLE blocks (
    id         TEXT PRIMARY KEY,          -- made of kind and target
    kind       TEXT NOT NULL CHECK (kind IN ('address', 'customer')),
    target     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    made_by    TEXT NOT NULL,             -- the id of an admin token
    created_at INTEGER NOT NULL,
    expires_at INTEGER NULL                    -- null: not by itself
);

-- How often the block list was changed, so that whoever remembers it notices.
CREATE TABLE block_changes (
    count INTEGER NOT NULL                     -- one row
);
INSERT INTO block_changes (count) VALUES (0);

CREATE TABLE admin_tokens (
    hash       BLOB NOT NULL PRIMARY KEY, -- SHA-256 of the token
    label      TEXT NOT NULL,
    role       TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'cashier', 'owner')),
    created_at INTEGER NOT NULL,
    expires_at INTEGER NULL               -- null: never
) WITHOUT ROWID;
