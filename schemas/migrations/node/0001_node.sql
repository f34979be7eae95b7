-- The node's own database: alarms, notifications and sequences of this node, at hand even while the store is away.

CREATE TABLE node_meta (
  key           TEXT  NOT NULL PRIMARY KEY,
  value         TEXT  NOT NULL
) STRICT;

-- One row per alarm instance; at most one is active per type and resource.
CREATE TABLE alarm (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  type          TEXT  NOT NULL,
  resource      TEXT  NOT NULL,
  path          TEXT  NOT NULL,
  severity      TEXT  NOT NULL,
  text          TEXT  NOT NULL,
  raised_at     INTEGER NOT NULL,
  changed_at    INTEGER NOT NULL,
  last_seen_at  INTEGER NOT NULL,
  cleared_at    INTEGER,
  count         INTEGER NOT NULL,
  acked_by      TEXT,
  acked_at      INTEGER,
  ack_note      TEXT,
  -- the detector's generation that last confirmed the condition
  generation    INTEGER NOT NULL,
  -- set while the store's copy is behind
  copy_pending  INTEGER   NOT NULL
) STRICT;
CREATE UNIQUE INDEX alarm_active ON alarm (type, resource) WHERE cleared_at IS NULL;
CREATE INDEX alarm_copy ON alarm (copy_pending);

-- Every transition, append-only.
CREATE TABLE alarm_event (
  sequence      INTEGER PRIMARY KEY AUTOINCREMENT,
  alarm_id      INTEGER NOT NULL REFERENCES alarm (id),
  -- raise, change, clear, ack
  transition    TEXT  NOT NULL,
  at            INTEGER NOT NULL,
  severity      TEXT  NOT NULL,
  text          TEXT  NOT NULL
) STRICT;

-- Messages on their way out ------------------------------------------------------------------------------------------

-- One row per target that was ever sent to: its own dense sequence, and the epoch that a reset begins anew.
CREATE TABLE outbox_target (
  target        TEXT  NOT NULL PRIMARY KEY,
  epoch         INTEGER NOT NULL,
  next_sequence INTEGER NOT NULL
) STRICT;

CREATE TABLE outbox (
  target        TEXT  NOT NULL,
  sequence      INTEGER NOT NULL,
  epoch         INTEGER NOT NULL,
  message_id    BLOB   NOT NULL UNIQUE,
  kind          TEXT  NOT NULL,
  payload       TEXT  NOT NULL,
  -- pending, sent, failed (given up)
  state         TEXT  NOT NULL,
  attempts      INTEGER NOT NULL,
  next_attempt_at INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  sent_at       INTEGER,
  last_error    TEXT,
  PRIMARY KEY (target, epoch, sequence)
) STRICT;
CREATE INDEX outbox_due ON outbox (state, next_attempt_at);
-- The oldest pending message of a target is one look-up, however many were sent.
CREATE INDEX outbox_pending ON outbox (target, epoch, sequence) WHERE state = 'pending';
