-- +goose Up

ALTER TABLE executions ADD COLUMN suspension_id BLOB;
ALTER TABLE executions ADD COLUMN waitpoint_id BLOB;
ALTER TABLE executions ADD COLUMN suspension_timeout_at INTEGER;

ALTER TABLE events ADD COLUMN signal_id BLOB;
ALTER TABLE events ADD COLUMN waitpoint_id BLOB;
ALTER TABLE events ADD COLUMN source TEXT;

-- The latest suspension of an execution, in force or over, as a JSON object.
CREATE TABLE suspensions (
    seq    INTEGER PRIMARY KEY,
    record TEXT NOT NULL
);

-- Where signals arrive. The record is a JSON object; it holds the token.
CREATE TABLE waitpoints (
    uuid          BLOB PRIMARY KEY,
    seq           INTEGER NOT NULL,
    open          INTEGER,
    pending_until INTEGER,
    record        TEXT NOT NULL
) WITHOUT ROWID;

CREATE INDEX waitpoints_by_execution ON waitpoints (seq, uuid);
CREATE INDEX waitpoints_open ON waitpoints (seq, uuid) WHERE open = 1;
CREATE INDEX waitpoints_pending ON waitpoints (pending_until) WHERE pending_until IS NOT NULL;

-- Signals, numbered from 1 within their execution. The record is a JSON object
-- without the payload.
CREATE TABLE signals (
    seq       INTEGER NOT NULL,
    n         INTEGER NOT NULL,
    uuid      BLOB NOT NULL,
    waitpoint BLOB NOT NULL,
    record    TEXT NOT NULL,
    payload   BLOB
);

CREATE UNIQUE INDEX signals_by_execution ON signals (seq, n);
CREATE UNIQUE INDEX signals_by_id ON signals (seq, uuid);

-- Idempotency keys of signals, by their waitpoint, and of suspensions.
CREATE TABLE signal_keys (
    waitpoint  BLOB NOT NULL,
    key        TEXT NOT NULL,
    signal     BLOB NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (waitpoint, key)
) WITHOUT ROWID;

CREATE INDEX signal_keys_expired ON signal_keys (expires_at);

CREATE TABLE suspend_keys (
    seq        INTEGER NOT NULL,
    key        TEXT NOT NULL,
    outcome    TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (seq, key)
) WITHOUT ROWID;

CREATE INDEX suspend_keys_expired ON suspend_keys (expires_at);

-- What waitpoint tokens are signed with.
CREATE TABLE waitpoint_secrets (
    kid        TEXT PRIMARY KEY,
    secret     TEXT NOT NULL,
    current    INTEGER,
    expires_at INTEGER
) WITHOUT ROWID;

INSERT INTO words (dimension, code, word) VALUES
    ('due_kind', 6, 'suspension_timeout'),
    ('due_kind', 7, 'pending_wp_expiry'),
    ('event_type', 8, 'signal_delivered'),
    ('event_type', 9, 'resumed'),
    ('event_type', 10, 'escalated');

-- +goose Down
DROP TABLE waitpoint_secrets;
DROP TABLE suspend_keys;
DROP TABLE signal_keys;
DROP TABLE signals;
DROP TABLE waitpoints;
DROP TABLE suspensions;
DELETE FROM words WHERE dimension = 'due_kind' AND code > 5 OR dimension = 'event_type' AND code > 7;
ALTER TABLE events DROP COLUMN source;
ALTER TABLE events DROP COLUMN waitpoint_id;
ALTER TABLE events DROP COLUMN signal_id;
ALTER TABLE executions DROP COLUMN suspension_timeout_at;
ALTER TABLE executions DROP COLUMN waitpoint_id;
ALTER TABLE executions DROP COLUMN suspension_id;
