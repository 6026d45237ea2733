-- Who is called, and how far: this process's own. Lost, the endpoints have to be added again; the events keep their ids.

CREATE TABLE endpoints (
    id            TEXT NOT NULL PRIMARY KEY,
    url           TEXT NOT NULL,
    sales         TEXT NOT NULL,          -- JSON list of names; empty is all
    events        TEXT NOT NULL,          -- JSON list of kinds; empty is all
    secret        BLOB NOT NULL,
    former_secret BLOB NULL,              -- signs too until former_until
    former_until  INTEGER NOT NULL,       -- this and all times but `since` and `at`: Unix milliseconds of the wall clock
    since         INTEGER NOT NULL,       -- chain time; nothing older is told
    paused        TEXT NULL,              -- why; null while it is called
    created_at    INTEGER NOT NULL,
    last_status   INTEGER NULL,           -- of the last call; null when there was no answer
    last_error    TEXT NULL,
    last_at       INTEGER NULL
) WITHOUT ROWID;

-- Every event before `next` was delivered, or waits below.
CREATE TABLE places (
    endpoint TEXT NOT NULL,
    sale     TEXT NOT NULL,
    next     INTEGER NOT NULL,
    PRIMARY KEY (endpoint, sale)
) WITHOUT ROWID;

-- Events that were not delivered, or stand behind one of the same order that was not. What they say is read from the chain again.
CREATE TABLE waiting (
    endpoint  TEXT NOT NULL,
    sale      TEXT NOT NULL,
    position  INTEGER NOT NULL,
    lane      INTEGER NULL,               -- the purchase; null for the sale itself
    at        INTEGER NOT NULL,           -- chain time
    attempts  INTEGER NOT NULL,
    due_at    INTEGER NOT NULL,
    failed_at INTEGER NULL,               -- the first failure
    reason    TEXT NOT NULL,              -- of the last failure
    parked    INTEGER NOT NULL,           -- 1: given up until somebody asks for it
    PRIMARY KEY (endpoint, sale, position)
) WITHOUT ROWID;
