-- +goose Up

-- Counters that hand out keys in blocks, and what the file was made for.
CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

-- Namespaces, lanes and kinds by number.
CREATE TABLE names (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
);

-- Sets of required capabilities by number, as sorted CSV.
CREATE TABLE capability_sets (
    id     INTEGER PRIMARY KEY,
    tokens TEXT NOT NULL UNIQUE
);

-- One row per execution. State words are numbers: executions_view shows them as
-- words. Instants are milliseconds since 1970, NULL is unset.
CREATE TABLE executions (
    seq                      INTEGER PRIMARY KEY,
    partition                INTEGER NOT NULL,
    uuid                     BLOB NOT NULL,
    namespace                INTEGER NOT NULL,
    lane                     INTEGER NOT NULL,
    kind                     INTEGER NOT NULL,
    caps                     INTEGER NOT NULL,
    creator                  TEXT,
    encoding                 TEXT,
    policy                   TEXT,
    idempotency_key          TEXT,
    created_at               INTEGER NOT NULL,
    public_state             INTEGER NOT NULL,
    score                    INTEGER NOT NULL,
    claimable                INTEGER,
    due_kind                 INTEGER,
    due_at                   INTEGER,
    phase                    INTEGER NOT NULL,
    ownership                INTEGER NOT NULL,
    eligibility              INTEGER NOT NULL,
    blocking                 INTEGER NOT NULL,
    outcome                  INTEGER NOT NULL,
    attempt_phase            INTEGER NOT NULL,
    priority                 INTEGER NOT NULL,
    current_attempt_id       BLOB,
    total_attempts           INTEGER NOT NULL,
    retry_count              INTEGER NOT NULL,
    replay_count             INTEGER NOT NULL,
    reclaim_count            INTEGER NOT NULL,
    lease_epoch              INTEGER NOT NULL,
    started_at               INTEGER,
    completed_at             INTEGER,
    last_transition_at       INTEGER,
    last_mutation_at         INTEGER,
    lease_id                 BLOB,
    lease_worker             TEXT,
    lease_instance           TEXT,
    lease_acquired_at        INTEGER,
    lease_expires_at         INTEGER,
    lease_renewed_at         INTEGER,
    lease_renew_before       INTEGER,
    attempt_id               BLOB,
    attempt_index            INTEGER NOT NULL,
    attempt_type             INTEGER NOT NULL,
    attempt_state            INTEGER NOT NULL,
    attempt_created_at       INTEGER,
    attempt_started_at       INTEGER,
    attempt_ended_at         INTEGER,
    attempt_worker           TEXT,
    attempt_instance         TEXT,
    attempt_lease_id         BLOB,
    attempt_lease_epoch      INTEGER NOT NULL,
    attempt_previous         INTEGER NOT NULL,
    attempt_suspended_at     INTEGER,
    attempt_resumed_at       INTEGER,
    attempt_suspension       TEXT,
    attempt_failure_reason   TEXT,
    attempt_failure_category TEXT,
    attempt_cause            TEXT,
    attempt_requested_by     TEXT,
    flow_id                  BLOB,
    blocking_detail          TEXT,
    delay_until              INTEGER,
    deadline                 INTEGER,
    attempt_timeout_at       INTEGER,
    tags                     TEXT,
    progress_percent         INTEGER,
    progress_message         TEXT,
    progress_updated_at      INTEGER,
    failure_reason           TEXT,
    failure_category         TEXT,
    cancellation_reason      TEXT,
    cancelled_by             TEXT,
    lease_expired_at         INTEGER,
    lease_revoked_at         INTEGER,
    lease_revoke_reason      TEXT,
    pending_retry_reason     TEXT,
    pending_replay_reason    TEXT,
    pending_replay_by        TEXT,
    pending_previous_attempt INTEGER NOT NULL,
    capability_mismatch_at   INTEGER,
    claim_grant              TEXT
);

CREATE UNIQUE INDEX executions_by_id ON executions (partition, uuid);
CREATE INDEX executions_by_state ON executions (namespace, lane, kind, public_state, seq);
CREATE INDEX executions_claimable ON executions (lane, caps, score, seq) WHERE claimable = 1;
CREATE INDEX executions_due ON executions (due_kind, due_at) WHERE due_kind IS NOT NULL;
-- Leases that were found lapsed: few at any time.
CREATE INDEX executions_lapsed ON executions (lease_expires_at, seq) WHERE ownership = 3;

-- Inputs and results are apart, so that a change of state rewrites a short row.
CREATE TABLE payloads (
    seq   INTEGER PRIMARY KEY,
    input BLOB NOT NULL
);

CREATE TABLE results (
    seq    INTEGER PRIMARY KEY,
    result BLOB NOT NULL
);

-- Attempts before the latest one, which is part of the execution.
CREATE TABLE attempts (
    seq              INTEGER NOT NULL,
    "index"          INTEGER NOT NULL,
    id               BLOB,
    type             INTEGER NOT NULL,
    state            INTEGER NOT NULL,
    created_at       INTEGER,
    started_at       INTEGER,
    ended_at         INTEGER,
    worker           TEXT,
    instance         TEXT,
    lease_id         BLOB,
    lease_epoch      INTEGER NOT NULL,
    previous         INTEGER NOT NULL,
    suspended_at     INTEGER,
    resumed_at       INTEGER,
    suspension       TEXT,
    failure_reason   TEXT,
    failure_category TEXT,
    cause            TEXT,
    requested_by     TEXT,
    PRIMARY KEY (seq, "index")
) WITHOUT ROWID;

CREATE TABLE idempotency (
    namespace  INTEGER NOT NULL,
    partition  INTEGER NOT NULL,
    key        TEXT NOT NULL,
    seq        INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, partition, key)
) WITHOUT ROWID;

CREATE INDEX idempotency_expired ON idempotency (expires_at);

CREATE TABLE workers (
    namespace     TEXT NOT NULL,
    instance      TEXT NOT NULL,
    worker        TEXT NOT NULL,
    lanes         TEXT NOT NULL,
    capabilities  TEXT NOT NULL,
    ttl           INTEGER NOT NULL,
    registered_at INTEGER NOT NULL,
    heartbeat_at  INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    PRIMARY KEY (namespace, instance)
) WITHOUT ROWID;

CREATE INDEX workers_expired ON workers (expires_at);

-- How many executions there are, kept by every transaction that changes it.
CREATE TABLE counts (
    namespace INTEGER NOT NULL,
    lane      INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    state     INTEGER NOT NULL,
    n         INTEGER NOT NULL,
    PRIMARY KEY (namespace, lane, kind, state)
) WITHOUT ROWID;

-- What happened, written with the change that caused it.
CREATE TABLE events (
    id            INTEGER PRIMARY KEY,
    seq           INTEGER NOT NULL,
    type          INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    flow_id       BLOB,
    lease_id      BLOB,
    lease_epoch   INTEGER NOT NULL,
    attempt_id    BLOB,
    attempt_index INTEGER NOT NULL,
    worker        TEXT,
    instance      TEXT,
    reason        TEXT,
    outcome       INTEGER NOT NULL
);

CREATE INDEX events_by_execution ON events (seq, id);

-- The words behind the numbers, for people with a shell.
CREATE TABLE words (
    dimension TEXT NOT NULL,
    code      INTEGER NOT NULL,
    word      TEXT NOT NULL,
    PRIMARY KEY (dimension, code)
) WITHOUT ROWID;

INSERT INTO words (dimension, code, word) VALUES
    ('phase', 1, 'submitted'),
    ('phase', 2, 'runnable'),
    ('phase', 3, 'active'),
    ('phase', 4, 'suspended'),
    ('phase', 5, 'terminal'),
    ('ownership', 1, 'unowned'),
    ('ownership', 2, 'leased'),
    ('ownership', 3, 'lease_expired_reclaimable'),
    ('ownership', 4, 'lease_revoked'),
    ('eligibility', 1, 'eligible_now'),
    ('eligibility', 2, 'not_eligible_until_time'),
    ('eligibility', 3, 'blocked_by_dependencies'),
    ('eligibility', 4, 'blocked_by_budget'),
    ('eligibility', 5, 'blocked_by_quota'),
    ('eligibility', 6, 'blocked_by_route'),
    ('eligibility', 7, 'blocked_by_lane_state'),
    ('eligibility', 8, 'blocked_by_operator'),
    ('eligibility', 9, 'not_applicable'),
    ('blocking', 1, 'none'),
    ('blocking', 2, 'waiting_for_worker'),
    ('blocking', 3, 'waiting_for_retry_backoff'),
    ('blocking', 4, 'waiting_for_resume_delay'),
    ('blocking', 5, 'waiting_for_delay'),
    ('blocking', 6, 'waiting_for_signal'),
    ('blocking', 7, 'waiting_for_approval'),
    ('blocking', 8, 'waiting_for_callback'),
    ('blocking', 9, 'waiting_for_tool_result'),
    ('blocking', 10, 'waiting_for_children'),
    ('blocking', 11, 'waiting_for_budget'),
    ('blocking', 12, 'waiting_for_quota'),
    ('blocking', 13, 'waiting_for_capable_worker'),
    ('blocking', 14, 'waiting_for_locality_match'),
    ('blocking', 15, 'paused_by_operator'),
    ('blocking', 16, 'paused_by_policy'),
    ('blocking', 17, 'paused_by_flow_cancel'),
    ('outcome', 1, 'none'),
    ('outcome', 2, 'success'),
    ('outcome', 3, 'failed'),
    ('outcome', 4, 'cancelled'),
    ('outcome', 5, 'expired'),
    ('outcome', 6, 'skipped'),
    ('attempt_phase', 1, 'none'),
    ('attempt_phase', 2, 'pending_first_attempt'),
    ('attempt_phase', 3, 'running_attempt'),
    ('attempt_phase', 4, 'attempt_interrupted'),
    ('attempt_phase', 5, 'pending_retry_attempt'),
    ('attempt_phase', 6, 'pending_replay_attempt'),
    ('attempt_phase', 7, 'attempt_terminal'),
    ('public_state', 1, 'waiting'),
    ('public_state', 2, 'delayed'),
    ('public_state', 3, 'rate_limited'),
    ('public_state', 4, 'waiting_children'),
    ('public_state', 5, 'active'),
    ('public_state', 6, 'suspended'),
    ('public_state', 7, 'resumable'),
    ('public_state', 8, 'completed'),
    ('public_state', 9, 'failed'),
    ('public_state', 10, 'cancelled'),
    ('public_state', 11, 'expired'),
    ('public_state', 12, 'skipped'),
    ('attempt_type', 1, 'initial'),
    ('attempt_type', 2, 'retry'),
    ('attempt_type', 3, 'reclaim'),
    ('attempt_type', 4, 'replay'),
    ('attempt_type', 5, 'fallback'),
    ('attempt_state', 1, 'created'),
    ('attempt_state', 2, 'started'),
    ('attempt_state', 3, 'suspended'),
    ('attempt_state', 4, 'ended_success'),
    ('attempt_state', 5, 'ended_failure'),
    ('attempt_state', 6, 'ended_cancelled'),
    ('attempt_state', 7, 'interrupted_reclaimed'),
    ('due_kind', 1, 'lease_expiry'),
    ('due_kind', 2, 'delayed_promoter'),
    ('due_kind', 3, 'attempt_timeout'),
    ('due_kind', 4, 'execution_deadline'),
    ('due_kind', 5, 'retention_trimmer'),
    ('event_type', 1, 'acquired'),
    ('event_type', 2, 'released'),
    ('event_type', 3, 'expired'),
    ('event_type', 4, 'revoked'),
    ('event_type', 5, 'reclaimed'),
    ('event_type', 6, 'replay_initiated'),
    ('event_type', 7, 'completion');

CREATE VIEW executions_view AS
SELECT
    x.seq,
    '{fp:' || x.partition || '}:' || substr(lower(hex(x.uuid)), 1, 8) || '-' || substr(lower(hex(x.uuid)), 9, 4) || '-' || substr(lower(hex(x.uuid)), 13, 4) || '-' || substr(lower(hex(x.uuid)), 17, 4) || '-' || substr(lower(hex(x.uuid)), 21) AS execution_id,
    (SELECT name FROM names WHERE id = x.namespace) AS namespace,
    (SELECT name FROM names WHERE id = x.lane) AS lane,
    (SELECT name FROM names WHERE id = x.kind) AS kind,
    (SELECT tokens FROM capability_sets WHERE id = x.caps) AS required_capabilities,
    x.priority,
    (SELECT word FROM words WHERE dimension = 'public_state' AND code = x.public_state) AS public_state,
    (SELECT word FROM words WHERE dimension = 'phase' AND code = x.phase) AS phase,
    (SELECT word FROM words WHERE dimension = 'ownership' AND code = x.ownership) AS ownership,
    (SELECT word FROM words WHERE dimension = 'eligibility' AND code = x.eligibility) AS eligibility,
    (SELECT word FROM words WHERE dimension = 'blocking' AND code = x.blocking) AS blocking,
    (SELECT word FROM words WHERE dimension = 'outcome' AND code = x.outcome) AS outcome,
    (SELECT word FROM words WHERE dimension = 'attempt_phase' AND code = x.attempt_phase) AS attempt_phase,
    x.blocking_detail,
    x.claimable,
    (SELECT word FROM words WHERE dimension = 'due_kind' AND code = x.due_kind) AS due_kind,
    strftime('%Y-%m-%dT%H:%M:%fZ', x.due_at / 1000.0, 'unixepoch') AS due_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', x.created_at / 1000.0, 'unixepoch') AS created_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', x.started_at / 1000.0, 'unixepoch') AS started_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', x.completed_at / 1000.0, 'unixepoch') AS completed_at,
    strftime('%Y-%m-%dT%H:%M:%fZ', x.delay_until / 1000.0, 'unixepoch') AS delay_until,
    strftime('%Y-%m-%dT%H:%M:%fZ', x.deadline / 1000.0, 'unixepoch') AS deadline,
    strftime('%Y-%m-%dT%H:%M:%fZ', x.lease_expires_at / 1000.0, 'unixepoch') AS lease_expires_at,
    x.lease_worker,
    x.lease_instance,
    x.lease_epoch,
    x.total_attempts,
    x.attempt_index,
    (SELECT word FROM words WHERE dimension = 'attempt_type' AND code = x.attempt_type) AS attempt_type,
    (SELECT word FROM words WHERE dimension = 'attempt_state' AND code = x.attempt_state) AS attempt_state,
    x.retry_count,
    x.reclaim_count,
    x.replay_count,
    x.failure_reason,
    x.failure_category,
    x.cancellation_reason,
    x.cancelled_by,
    x.progress_percent,
    x.progress_message,
    x.tags,
    x.policy
FROM executions AS x;

CREATE VIEW events_view AS
SELECT
    e.id,
    '{fp:' || x.partition || '}:' || substr(lower(hex(x.uuid)), 1, 8) || '-' || substr(lower(hex(x.uuid)), 9, 4) || '-' || substr(lower(hex(x.uuid)), 13, 4) || '-' || substr(lower(hex(x.uuid)), 17, 4) || '-' || substr(lower(hex(x.uuid)), 21) AS execution_id,
    (SELECT word FROM words WHERE dimension = 'event_type' AND code = e.type) AS type,
    strftime('%Y-%m-%dT%H:%M:%fZ', e.at / 1000.0, 'unixepoch') AS at,
    (SELECT word FROM words WHERE dimension = 'outcome' AND code = nullif(e.outcome, 0)) AS outcome,
    e.reason,
    e.worker,
    e.instance,
    e.lease_epoch,
    e.attempt_index
FROM events AS e JOIN executions AS x ON x.seq = e.seq;

-- +goose Down
DROP VIEW events_view;
DROP VIEW executions_view;
DROP TABLE words;
DROP TABLE events;
DROP TABLE counts;
DROP TABLE workers;
DROP TABLE idempotency;
DROP TABLE attempts;
DROP TABLE results;
DROP TABLE payloads;
DROP TABLE executions;
DROP TABLE capability_sets;
DROP TABLE names;
DROP TABLE meta;
