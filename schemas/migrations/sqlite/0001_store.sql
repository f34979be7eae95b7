-- The store: one schema, two dialects. Instants are UTC milliseconds, money is in 10^-6 units (prices 10^-10),
-- identifiers are UUIDv7, JSON is text that no query looks into. Paths and other sort keys compare octet by octet.

-- One row: what this installation is.
CREATE TABLE installation (
  id            BLOB   NOT NULL PRIMARY KEY,
  created_at    INTEGER NOT NULL
) STRICT;

-- Dense sequences. A row is updated last in its transaction, so that readers see numbers in commit order.
-- 'event', 'audit' (with the head of the hash chain), 'rated'.
CREATE TABLE counter (
  name          TEXT  NOT NULL PRIMARY KEY,
  value         INTEGER NOT NULL,
  head          BLOB
) STRICT;
INSERT INTO counter (name, value) VALUES ('event', 0), ('audit', 0), ('rated', 0);

-- Who holds a duty of the whole installation, with a fencing token that grows with each holder.
CREATE TABLE lease (
  name          TEXT  NOT NULL PRIMARY KEY,
  holder        TEXT  NOT NULL,
  fence         INTEGER NOT NULL,
  until         INTEGER NOT NULL
) STRICT;

-- The tenants ------------------------------------------------------------------------------------------------------

CREATE TABLE account (
  id            BLOB   NOT NULL PRIMARY KEY,
  parent_id     BLOB   REFERENCES account (id),
  path          TEXT  NOT NULL UNIQUE,
  kind          TEXT  NOT NULL,
  name          TEXT  NOT NULL,
  timezone      TEXT  NOT NULL,
  currency      TEXT  NOT NULL,
  -- concurrent calls; no value: no limit of its own
  call_limit    INTEGER,
  -- subscribers at and below; no value: no limit of its own
  subscriber_quota INTEGER,
  subscriber_count INTEGER NOT NULL DEFAULT 0,
  enabled       INTEGER   NOT NULL,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX account_name ON account (parent_id, name);

CREATE TABLE domain (
  id            BLOB   NOT NULL PRIMARY KEY,
  account_id    BLOB   NOT NULL REFERENCES account (id),
  -- canonical lower-case name, also the digest realm; immutable
  name          TEXT  NOT NULL UNIQUE,
  -- how dialled digits become E.164
  country_code  TEXT  NOT NULL,
  national_prefix TEXT NOT NULL,
  international_prefix TEXT NOT NULL,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX domain_account ON domain (account_id);

CREATE TABLE site (
  id            BLOB   NOT NULL PRIMARY KEY,
  account_id    BLOB   NOT NULL REFERENCES account (id),
  name          TEXT  NOT NULL,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  UNIQUE (account_id, name)
) STRICT;

CREATE TABLE subscriber (
  id            BLOB   NOT NULL PRIMARY KEY,
  account_id    BLOB   NOT NULL REFERENCES account (id),
  domain_id     BLOB   NOT NULL REFERENCES domain (id),
  site_id       BLOB   REFERENCES site (id),
  username      TEXT  NOT NULL,
  display_name  TEXT  NOT NULL,
  extension     TEXT,
  -- HA1 of MD5 and SHA-256 over username:domain:password, sealed with the key file; never read by any face
  ha1_md5       BLOB  NOT NULL,
  ha1_sha256    BLOB  NOT NULL,
  call_limit    INTEGER,
  enabled       INTEGER   NOT NULL,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  UNIQUE (domain_id, username),
  UNIQUE (account_id, extension)
) STRICT;
CREATE INDEX subscriber_site ON subscriber (site_id);

CREATE TABLE number (
  id            BLOB   NOT NULL PRIMARY KEY,
  account_id    BLOB   NOT NULL REFERENCES account (id),
  -- + and digits
  e164          TEXT  NOT NULL UNIQUE,
  subscriber_id BLOB   REFERENCES subscriber (id),
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX number_account ON number (account_id);
CREATE INDEX number_subscriber ON number (subscriber_id);

CREATE TABLE trunk (
  id            BLOB   NOT NULL PRIMARY KEY,
  account_id    BLOB   NOT NULL REFERENCES account (id),
  name          TEXT  NOT NULL,
  -- IP address and port of the peer; also how its requests are known
  address       TEXT  NOT NULL UNIQUE,
  -- digest credentials for requests that we send; the password is sealed
  username      TEXT,
  password      BLOB,
  call_limit    INTEGER,
  -- lower is tried first
  priority      INTEGER NOT NULL,
  -- period of OPTIONS pings; 0: none, the trunk counts as up
  keepalive_ms  INTEGER NOT NULL,
  enabled       INTEGER   NOT NULL,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  UNIQUE (account_id, name)
) STRICT;

CREATE TABLE tariff (
  id            BLOB   NOT NULL PRIMARY KEY,
  account_id    BLOB   NOT NULL REFERENCES account (id),
  name          TEXT  NOT NULL,
  currency      TEXT  NOT NULL,
  rounding_mode TEXT  NOT NULL,
  rounding_decimals INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  UNIQUE (account_id, name)
) STRICT;

CREATE TABLE tariff_rate (
  tariff_id     BLOB   NOT NULL REFERENCES tariff (id),
  -- digits of E.164 without +
  prefix        TEXT  NOT NULL,
  description   TEXT  NOT NULL,
  -- 10^-10 units
  connect_fee   INTEGER NOT NULL,
  -- 10^-10 units for per_ms milliseconds
  price         INTEGER NOT NULL,
  per_ms        INTEGER NOT NULL,
  initial_ms    INTEGER NOT NULL,
  increment_ms  INTEGER NOT NULL,
  PRIMARY KEY (tariff_id, prefix)
) STRICT;

-- side 'sell': the account at and below is charged; side 'buy': what the trunk's operator charges us.
CREATE TABLE tariff_assignment (
  id            BLOB   NOT NULL PRIMARY KEY,
  tariff_id     BLOB   NOT NULL REFERENCES tariff (id),
  -- the owner of the assignment, for scopes
  account_id    BLOB   NOT NULL REFERENCES account (id),
  trunk_id      BLOB   REFERENCES trunk (id),
  side          TEXT  NOT NULL,
  valid_from    INTEGER NOT NULL,
  valid_to      INTEGER,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX tariff_assignment_account ON tariff_assignment (account_id, side, valid_from);
CREATE INDEX tariff_assignment_trunk ON tariff_assignment (trunk_id, side, valid_from);
CREATE INDEX tariff_assignment_tariff ON tariff_assignment (tariff_id);

CREATE TABLE api_token (
  id            BLOB   NOT NULL PRIMARY KEY,
  account_id    BLOB   NOT NULL REFERENCES account (id),
  name          TEXT  NOT NULL,
  -- SHA-256 of a token of 256 random bits
  token_hash    BLOB  NOT NULL UNIQUE,
  permissions   TEXT  NOT NULL,
  expires_at    INTEGER,
  revoked_at    INTEGER,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  UNIQUE (account_id, name)
) STRICT;

CREATE TABLE registration (
  subscriber_id BLOB   NOT NULL REFERENCES subscriber (id) ON DELETE CASCADE,
  contact       TEXT  NOT NULL,
  -- where requests go: the source of the REGISTER (RFC 3581)
  source        TEXT  NOT NULL,
  call_id       TEXT  NOT NULL,
  cseq          INTEGER NOT NULL,
  user_agent    TEXT  NOT NULL,
  expires_at    INTEGER NOT NULL,
  PRIMARY KEY (subscriber_id, contact)
) STRICT;

-- Changes ----------------------------------------------------------------------------------------------------------

-- Every committed change: what, by whom, and the hash that chains it to the one before.
CREATE TABLE audit (
  sequence      INTEGER NOT NULL PRIMARY KEY,
  change_id     BLOB   NOT NULL UNIQUE,
  at            INTEGER NOT NULL,
  path          TEXT  NOT NULL,
  actor_kind    TEXT  NOT NULL,
  actor_id      BLOB   NOT NULL,
  actor_name    TEXT  NOT NULL,
  trace_id      BLOB   NOT NULL,
  command       TEXT  NOT NULL,
  plan          TEXT  NOT NULL,
  previous_hash BLOB  NOT NULL,
  hash          BLOB  NOT NULL
) STRICT;
CREATE INDEX audit_path ON audit (path, sequence);

CREATE TABLE idempotency (
  actor_id      BLOB   NOT NULL,
  key           TEXT  NOT NULL,
  request_hash  BLOB  NOT NULL,
  change_id     BLOB   NOT NULL,
  answer        TEXT  NOT NULL,
  at            INTEGER NOT NULL,
  PRIMARY KEY (actor_id, key)
) STRICT;

-- The feed of the store.
CREATE TABLE event (
  sequence      INTEGER NOT NULL PRIMARY KEY,
  at            INTEGER NOT NULL,
  kind          TEXT  NOT NULL,
  path          TEXT,
  payload       TEXT  NOT NULL
) STRICT;

-- How far a consumer has come, committed with its effects. source: 'journal:<node>' or 'event' (epoch 0).
CREATE TABLE consumer_cursor (
  consumer      TEXT  NOT NULL,
  source        TEXT  NOT NULL,
  epoch         INTEGER NOT NULL,
  sequence      INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  PRIMARY KEY (consumer, source)
) STRICT;

-- Usage and money --------------------------------------------------------------------------------------------------

-- One row per call, leg and part. leg 0: the caller's, 1: the callee's.
CREATE TABLE usage (
  call_id       BLOB   NOT NULL,
  leg           INTEGER NOT NULL,
  part          INTEGER NOT NULL,
  is_last       INTEGER   NOT NULL,
  account_id    BLOB   NOT NULL,
  path          TEXT  NOT NULL,
  subscriber_id BLOB,
  trunk_id      BLOB,
  dialled       TEXT  NOT NULL,
  called        TEXT,
  calling       TEXT,
  invited_at    INTEGER NOT NULL,
  answered_at   INTEGER NOT NULL,
  ended_at      INTEGER NOT NULL,
  duration_ms   INTEGER NOT NULL,
  pdd_ms        INTEGER NOT NULL,
  cause         TEXT  NOT NULL,
  released_by   TEXT  NOT NULL,
  estimated     INTEGER   NOT NULL,
  -- the callee's 200 never became the caller's: nothing is sold, the supplier may charge
  aborted       INTEGER   NOT NULL,
  packets_received INTEGER,
  packets_sent  INTEGER,
  packets_lost  INTEGER,
  -- rated, suspense, or uncharged (nobody is charged for this leg)
  state         TEXT  NOT NULL,
  node          TEXT  NOT NULL,
  epoch         INTEGER NOT NULL,
  sequence      INTEGER NOT NULL,
  -- SHA-256 of the journal record: the same key with another body is a conflict
  raw_hash      BLOB  NOT NULL,
  PRIMARY KEY (call_id, leg, part)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_path ON usage (path, answered_at);

CREATE TABLE rated (
  call_id       BLOB   NOT NULL,
  leg           INTEGER NOT NULL,
  part          INTEGER NOT NULL,
  account_id    BLOB   NOT NULL,
  side          TEXT  NOT NULL,
  version       INTEGER NOT NULL,
  -- dense, in commit order: files take rows by it
  sequence      INTEGER NOT NULL UNIQUE,
  batch_id      BLOB   NOT NULL,
  path          TEXT  NOT NULL,
  tariff_id     BLOB   NOT NULL,
  tariff_version INTEGER NOT NULL,
  prefix        TEXT  NOT NULL,
  billed_ms     INTEGER NOT NULL,
  currency      TEXT  NOT NULL,
  exact_numerator INTEGER NOT NULL,
  exact_denominator INTEGER NOT NULL,
  amount        INTEGER NOT NULL,
  answered_at   INTEGER NOT NULL,
  rated_at      INTEGER NOT NULL,
  PRIMARY KEY (call_id, leg, part, account_id, side, version)
) STRICT, WITHOUT ROWID;

-- The rows that a `rated` event names.
CREATE INDEX rated_batch ON rated (batch_id);

-- What could not be rated, with its reason; corrected and replayed, never dropped.
CREATE TABLE suspense (
  call_id       BLOB   NOT NULL,
  leg           INTEGER NOT NULL,
  part          INTEGER NOT NULL,
  account_id    BLOB   NOT NULL,
  side          TEXT  NOT NULL,
  path          TEXT  NOT NULL,
  code          TEXT  NOT NULL,
  detail        TEXT  NOT NULL,
  attempts      INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  resolved_at   INTEGER,
  PRIMARY KEY (call_id, leg, part, account_id, side)
) STRICT;
CREATE INDEX suspense_open ON suspense (path, created_at);

-- A journal record that came again with another body, or that no rule can place: kept whole.
CREATE TABLE conflict (
  node          TEXT  NOT NULL,
  epoch         INTEGER NOT NULL,
  sequence      INTEGER NOT NULL,
  call_id       BLOB   NOT NULL,
  leg           INTEGER NOT NULL,
  part          INTEGER NOT NULL,
  record        BLOB  NOT NULL,
  detail        TEXT  NOT NULL,
  created_at    INTEGER NOT NULL,
  PRIMARY KEY (node, epoch, sequence, leg)
) STRICT;

-- Postings per batch, account and book; the books of a batch sum to zero per currency.
-- sell: receivable (+) against revenue (-); buy: cost (+) against payable (-).
CREATE TABLE ledger (
  id            BLOB   NOT NULL PRIMARY KEY,
  batch_id      BLOB   NOT NULL,
  account_id    BLOB   NOT NULL,
  path          TEXT  NOT NULL,
  book          TEXT  NOT NULL,
  currency      TEXT  NOT NULL,
  amount        INTEGER NOT NULL,
  rated_count   INTEGER NOT NULL,
  at            INTEGER NOT NULL,
  UNIQUE (batch_id, account_id, book, currency)
) STRICT;
CREATE INDEX ledger_account ON ledger (account_id, at);

CREATE TABLE stream (
  id            BLOB   NOT NULL PRIMARY KEY,
  account_id    BLOB   NOT NULL REFERENCES account (id),
  name          TEXT  NOT NULL,
  -- rows of this side, charged at and below the account
  side          TEXT  NOT NULL,
  -- the open file is closed by the daemon after this time; 0: only on request
  close_period_ms INTEGER NOT NULL,
  next_sequence INTEGER NOT NULL,
  -- rows of rated up to this sequence have been considered
  rated_cursor  INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  UNIQUE (account_id, name)
) STRICT;

CREATE TABLE billing_file (
  id            BLOB   NOT NULL PRIMARY KEY,
  stream_id     BLOB   NOT NULL REFERENCES stream (id),
  sequence      INTEGER NOT NULL,
  name          TEXT  NOT NULL,
  format_version INTEGER NOT NULL,
  -- planned (the item list is committed), published (the bytes lie under their final name)
  state         TEXT  NOT NULL,
  closure_reason TEXT NOT NULL,
  closed_at     INTEGER NOT NULL,
  record_count  INTEGER NOT NULL,
  billed_ms     INTEGER NOT NULL,
  -- JSON: totals per currency
  totals        TEXT  NOT NULL,
  first_answered_at INTEGER,
  last_answered_at INTEGER,
  -- the range of rated.sequence that was considered, half-open
  rated_from    INTEGER NOT NULL,
  rated_to      INTEGER NOT NULL,
  size          INTEGER,
  sha256        BLOB,
  previous_sha256 BLOB,
  -- accepted or rejected by the BSS
  ack_state     TEXT,
  ack_reason    TEXT,
  ack_by        TEXT,
  ack_at        INTEGER,
  UNIQUE (stream_id, sequence)
) STRICT;

CREATE TABLE billing_item (
  stream_id     BLOB   NOT NULL,
  rated_sequence INTEGER NOT NULL,
  file_id       BLOB   NOT NULL REFERENCES billing_file (id),
  position      INTEGER NOT NULL,
  PRIMARY KEY (stream_id, rated_sequence)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX billing_item_file ON billing_item (file_id, position);

-- Faults -----------------------------------------------------------------------------------------------------------

-- A copy of the nodes' alarms for queries; the node is the authority.
CREATE TABLE alarm (
  node          TEXT  NOT NULL,
  id            INTEGER NOT NULL,
  type          TEXT  NOT NULL,
  resource      TEXT  NOT NULL,
  -- the account that the alarm belongs to; an alarm of the platform has the path ''
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
  PRIMARY KEY (node, id)
) STRICT;
CREATE INDEX alarm_path ON alarm (path, raised_at);

-- Acknowledgements on their way to the node.
CREATE TABLE alarm_ack (
  node          TEXT  NOT NULL,
  alarm_id      INTEGER NOT NULL,
  change_id     BLOB   NOT NULL,
  acked_by      TEXT  NOT NULL,
  acked_at      INTEGER NOT NULL,
  note          TEXT  NOT NULL,
  applied_at    INTEGER,
  PRIMARY KEY (node, alarm_id, change_id)
) STRICT;

-- Performance ------------------------------------------------------------------------------------------------------

-- Raw counts per 15 minutes UTC; never a percentage. Attempts count in the interval of their INVITE, conversation
-- time in that of the end. scope_kind: installation (nil id, path ''), account (at and below), trunk.
CREATE TABLE pm_interval (
  start_at      INTEGER NOT NULL,
  scope_kind    TEXT  NOT NULL,
  scope_id      BLOB   NOT NULL,
  node          TEXT  NOT NULL,
  path          TEXT  NOT NULL,
  attempts      INTEGER NOT NULL,
  answered      INTEGER NOT NULL,
  user_busy     INTEGER NOT NULL,
  no_answer     INTEGER NOT NULL,
  terminal_reject INTEGER NOT NULL,
  address_error INTEGER NOT NULL,
  network_failure INTEGER NOT NULL,
  pdd_count     INTEGER NOT NULL,
  pdd_sum_ms    INTEGER NOT NULL,
  ended         INTEGER NOT NULL,
  conversation_ms INTEGER NOT NULL,
  estimated     INTEGER NOT NULL,
  packets_received INTEGER NOT NULL,
  packets_lost  INTEGER NOT NULL,
  revision      INTEGER NOT NULL,
  PRIMARY KEY (start_at, scope_kind, scope_id, node)
) STRICT, WITHOUT ROWID;
CREATE INDEX pm_interval_path ON pm_interval (path, start_at);

-- Money per 15 minutes of the answer, from the batches that were rated.
CREATE TABLE pm_revenue (
  start_at      INTEGER NOT NULL,
  account_id    BLOB   NOT NULL,
  side          TEXT  NOT NULL,
  currency      TEXT  NOT NULL,
  path          TEXT  NOT NULL,
  rated_count   INTEGER NOT NULL,
  billed_ms     INTEGER NOT NULL,
  amount        INTEGER NOT NULL,
  PRIMARY KEY (start_at, account_id, side, currency)
) STRICT, WITHOUT ROWID;
CREATE INDEX pm_revenue_path ON pm_revenue (path, start_at);

CREATE TABLE report_run (
  id            BLOB   NOT NULL PRIMARY KEY,
  definition    TEXT  NOT NULL,
  period        TEXT  NOT NULL,
  revision      INTEGER NOT NULL,
  account_id    BLOB   NOT NULL,
  path          TEXT  NOT NULL,
  timezone      TEXT  NOT NULL,
  period_from   INTEGER NOT NULL,
  period_to     INTEGER NOT NULL,
  provisional   INTEGER   NOT NULL,
  -- due, running, finished, failed
  state         TEXT  NOT NULL,
  holder        TEXT,
  lease_until   INTEGER,
  attempt       INTEGER NOT NULL,
  -- JSON: mail addresses
  recipients    TEXT  NOT NULL,
  -- JSON snapshot of the figures, taken once; rendering starts from it
  figures       TEXT,
  html_sha256   BLOB,
  csv_sha256    BLOB,
  error         TEXT,
  created_at    INTEGER NOT NULL,
  finished_at   INTEGER,
  UNIQUE (definition, period, revision)
) STRICT;
CREATE INDEX report_run_path ON report_run (path, created_at);

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
