-- +goose Up

-- The output streams of attempts: what there is beside the frames.
CREATE TABLE streams (
    seq        INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    kept       INTEGER NOT NULL,
    last_ms    INTEGER NOT NULL,
    last_n     INTEGER NOT NULL,
    lasting    INTEGER NOT NULL,
    expires_at INTEGER,
    -- Best-effort frames per million seconds, smoothed, and the latest of them.
    rate       INTEGER,
    rated_at   INTEGER,
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;

CREATE INDEX streams_expired ON streams (expires_at) WHERE expires_at IS NOT NULL;

-- A frame is short as a rule: the row is the key, and what is as usual is NULL or 0.
CREATE TABLE frames (
    seq            INTEGER NOT NULL,
    attempt        INTEGER NOT NULL,
    ms             INTEGER NOT NULL,
    n              INTEGER NOT NULL,
    mode           INTEGER NOT NULL,
    -- The writer's clock, in milliseconds after ms.
    written        INTEGER NOT NULL,
    type           TEXT,
    -- NULL is utf8.
    encoding       TEXT,
    -- NULL is worker.
    source         TEXT,
    correlation_id TEXT,
    -- The TTL of a best-effort frame in milliseconds, the version of a summary frame.
    detail         INTEGER,
    payload        BLOB,
    PRIMARY KEY (seq, attempt, ms, n)
) WITHOUT ROWID;

CREATE TABLE summaries (
    seq        INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    version    INTEGER NOT NULL,
    applied_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    document   TEXT NOT NULL,
    PRIMARY KEY (seq, attempt)
) WITHOUT ROWID;

INSERT INTO words (dimension, code, word) VALUES
    ('frame_mode', 1, 'durable'),
    ('frame_mode', 2, 'summary'),
    ('frame_mode', 3, 'best_effort');

CREATE VIEW frames_view AS
SELECT
    '{fp:' || x.partition || '}:' || substr(lower(hex(x.uuid)), 1, 8) || '-' || substr(lower(hex(x.uuid)), 9, 4) || '-' || substr(lower(hex(x.uuid)), 13, 4) || '-' || substr(lower(hex(x.uuid)), 17, 4) || '-' || substr(lower(hex(x.uuid)), 21) AS execution_id,
    f.attempt,
    f.ms || '-' || f.n AS id,
    (SELECT word FROM words WHERE dimension = 'frame_mode' AND code = f.mode) AS mode,
    strftime('%Y-%m-%dT%H:%M:%fZ', (f.ms + f.written) / 1000.0, 'unixepoch') AS at,
    coalesce(f.type, '') AS type,
    coalesce(f.source, 'worker') AS source,
    f.correlation_id,
    length(f.payload) AS bytes,
    f.payload
FROM frames AS f JOIN executions AS x ON x.seq = f.seq;

-- +goose Down
DROP VIEW frames_view;
DELETE FROM words WHERE dimension = 'frame_mode';
DROP TABLE summaries;
DROP TABLE frames;
DROP TABLE streams;
