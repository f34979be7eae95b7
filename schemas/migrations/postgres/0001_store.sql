-- The store: one schema, two dialects. Instants are UTC milliseconds, money is in 10^-6 units (prices 10^-10),
-- identifiers are UUIDv7, JSON is text that no query looks into. Paths and other sort keys compare octet by octet.

-- One row: what this installation is.
CREATE TABLE installation (
  id            UUID   NOT NULL PRIMARY KEY,
  created_at    BIGINT NOT NULL
);

-- Dense sequences. A row is updated last in its transaction, so that readers see numbers in commit order.
-- 'event', 'audit' (with the head of the hash chain), 'rated'.
CREATE TABLE counter (
  name          TEXT COLLATE "C"  NOT NULL PRIMARY KEY,
  value         BIGINT NOT NULL,
  head          BYTEA
);
INSERT INTO counter (name, value) VALUES ('event', 0), ('audit', 0), ('rated', 0);

-- Who holds a duty of the whole installation, with a fencing token that grows with each holder.
CREATE TABLE lease (
  name          TEXT COLLATE "C"  NOT NULL PRIMARY KEY,
  holder        TEXT COLLATE "C"  NOT NULL,
  fence         BIGINT NOT NULL,
  until         BIGINT NOT NULL
);

-- The tenants ------------------------------------------------------------------------------------------------------

CREATE TABLE account (
  id            UUID   NOT NULL PRIMARY KEY,
  parent_id     UUID   REFERENCES account (id),
  path          TEXT COLLATE "C"  NOT NULL UNIQUE,
  kind          TEXT COLLATE "C"  NOT NULL,
  name          TEXT COLLATE "C"  NOT NULL,
  timezone      TEXT COLLATE "C"  NOT NULL,
  currency      TEXT COLLATE "C"  NOT NULL,
  -- concurrent calls; no value: no limit of its own
  call_limit    BIGINT,
  -- subscribers at and below; no value: no limit of its own
  subscriber_quota BIGINT,
  subscriber_count BIGINT NOT NULL DEFAULT 0,
  enabled       BOOLEAN   NOT NULL,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL
);
CREATE UNIQUE INDEX account_name ON account (parent_id, name);

CREATE TABLE domain (
  id            UUID   NOT NULL PRIMARY KEY,
  account_id    UUID   NOT NULL REFERENCES account (id),
  -- canonical lower-case name, also the digest realm; immutable
  name          TEXT COLLATE "C"  NOT NULL UNIQUE,
  -- how dialled digits become E.164
  country_code  TEXT COLLATE "C"  NOT NULL,
  national_prefix TEXT COLLATE "C" NOT NULL,
  international_prefix TEXT COLLATE "C" NOT NULL,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL
);
CREATE INDEX domain_account ON domain (account_id);

CREATE TABLE site (
  id            UUID   NOT NULL PRIMARY KEY,
  account_id    UUID   NOT NULL REFERENCES account (id),
  name          TEXT COLLATE "C"  NOT NULL,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  UNIQUE (account_id, name)
);

CREATE TABLE subscriber (
  id            UUID   NOT NULL PRIMARY KEY,
  account_id    UUID   NOT NULL REFERENCES account (id),
  domain_id     UUID   NOT NULL REFERENCES domain (id),
  site_id       UUID   REFERENCES site (id),
  username      TEXT COLLATE "C"  NOT NULL,
  display_name  TEXT COLLATE "C"  NOT NULL,
  extension     TEXT COLLATE "C",
  -- HA1 of MD5 and SHA-256 over username:domain:password, sealed with the key file; never read by any face
  ha1_md5       BYTEA  NOT NULL,
  ha1_sha256    BYTEA  NOT NULL,
  call_limit    BIGINT,
  enabled       BOOLEAN   NOT NULL,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  UNIQUE (domain_id, username),
  UNIQUE (account_id, extension)
);
CREATE INDEX subscriber_site ON subscriber (site_id);

CREATE TABLE number (
  id            UUID   NOT NULL PRIMARY KEY,
  account_id    UUID   NOT NULL REFERENCES account (id),
  -- + and digits
  e164          TEXT COLLATE "C"  NOT NULL UNIQUE,
  subscriber_id UUID   REFERENCES subscriber (id),
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL
);
CREATE INDEX number_account ON number (account_id);
CREATE INDEX number_subscriber ON number (subscriber_id);

CREATE TABLE trunk (
  id            UUID   NOT NULL PRIMARY KEY,
  account_id    UUID   NOT NULL REFERENCES account (id),
  name          TEXT COLLATE "C"  NOT NULL,
  -- IP address and port of the peer; also how its requests are known
  address       TEXT COLLATE "C"  NOT NULL UNIQUE,
  -- digest credentials for requests that we send; the password is sealed
  username      TEXT COLLATE "C",
  password      BYTEA,
  call_limit    BIGINT,
  -- lower is tried first
  priority      BIGINT NOT NULL,
  -- period of OPTIONS pings; 0: none, the trunk counts as up
  keepalive_ms  BIGINT NOT NULL,
  enabled       BOOLEAN   NOT NULL,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  UNIQUE (account_id, name)
);

CREATE TABLE tariff (
  id            UUID   NOT NULL PRIMARY KEY,
  account_id    UUID   NOT NULL REFERENCES account (id),
  name          TEXT COLLATE "C"  NOT NULL,
  currency      TEXT COLLATE "C"  NOT NULL,
  rounding_mode TEXT COLLATE "C"  NOT NULL,
  rounding_decimals BIGINT NOT NULL,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  UNIQUE (account_id, name)
);

CREATE TABLE tariff_rate (
  tariff_id     UUID   NOT NULL REFERENCES tariff (id),
  -- digits of E.164 without +
  prefix        TEXT COLLATE "C"  NOT NULL,
  description   TEXT COLLATE "C"  NOT NULL,
  -- 10^-10 units
  connect_fee   BIGINT NOT NULL,
  -- 10^-10 units for per_ms milliseconds
  price         BIGINT NOT NULL,
  per_ms        BIGINT NOT NULL,
  initial_ms    BIGINT NOT NULL,
  increment_ms  BIGINT NOT NULL,
  PRIMARY KEY (tariff_id, prefix)
);

-- side 'sell': the account at and below is charged; side 'buy': what the trunk's operator charges us.
CREATE TABLE tariff_assignment (
  id            UUID   NOT NULL PRIMARY KEY,
  tariff_id     UUID   NOT NULL REFERENCES tariff (id),
  -- the owner of the assignment, for scopes
  account_id    UUID   NOT NULL REFERENCES account (id),
  trunk_id      UUID   REFERENCES trunk (id),
  side          TEXT COLLATE "C"  NOT NULL,
  valid_from    BIGINT NOT NULL,
  valid_to      BIGINT,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL
);
CREATE INDEX tariff_assignment_account ON tariff_assignment (account_id, side, valid_from);
CREATE INDEX tariff_assignment_trunk ON tariff_assignment (trunk_id, side, valid_from);
CREATE INDEX tariff_assignment_tariff ON tariff_assignment (tariff_id);

CREATE TABLE api_token (
  id            UUID   NOT NULL PRIMARY KEY,
  account_id    UUID   NOT NULL REFERENCES account (id),
  name          TEXT COLLATE "C"  NOT NULL,
  -- SHA-256 of a token of 256 random bits
  token_hash    BYTEA  NOT NULL UNIQUE,
  permissions   TEXT COLLATE "C"  NOT NULL,
  expires_at    BIGINT,
  revoked_at    BIGINT,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  UNIQUE (account_id, name)
);

CREATE TABLE registration (
  subscriber_id UUID   NOT NULL REFERENCES subscriber (id) ON DELETE CASCADE,
  contact       TEXT COLLATE "C"  NOT NULL,
  -- where requests go: the source of the REGISTER (RFC 3581)
  source        TEXT COLLATE "C"  NOT NULL,
  call_id       TEXT COLLATE "C"  NOT NULL,
  cseq          BIGINT NOT NULL,
  user_agent    TEXT COLLATE "C"  NOT NULL,
  expires_at    BIGINT NOT NULL,
  PRIMARY KEY (subscriber_id, contact)
);

-- Changes ----------------------------------------------------------------------------------------------------------

-- Every committed change: what, by whom, and the hash that chains it to the one before.
CREATE TABLE audit (
  sequence      BIGINT NOT NULL PRIMARY KEY,
  change_id     UUID   NOT NULL UNIQUE,
  at            BIGINT NOT NULL,
  path          TEXT COLLATE "C"  NOT NULL,
  actor_kind    TEXT COLLATE "C"  NOT NULL,
  actor_id      UUID   NOT NULL,
  actor_name    TEXT COLLATE "C"  NOT NULL,
  trace_id      UUID   NOT NULL,
  command       TEXT COLLATE "C"  NOT NULL,
  plan          TEXT COLLATE "C"  NOT NULL,
  previous_hash BYTEA  NOT NULL,
  hash          BYTEA  NOT NULL
);
CREATE INDEX audit_path ON audit (path, sequence);

CREATE TABLE idempotency (
  actor_id      UUID   NOT NULL,
  key           TEXT COLLATE "C"  NOT NULL,
  request_hash  BYTEA  NOT NULL,
  change_id     UUID   NOT NULL,
  answer        TEXT COLLATE "C"  NOT NULL,
  at            BIGINT NOT NULL,
  PRIMARY KEY (actor_id, key)
);

-- The feed of the store.
CREATE TABLE event (
  sequence      BIGINT NOT NULL PRIMARY KEY,
  at            BIGINT NOT NULL,
  kind          TEXT COLLATE "C"  NOT NULL,
  path          TEXT COLLATE "C",
  payload       TEXT COLLATE "C"  NOT NULL
);

-- How far a consumer has come, committed with its effects. source: 'journal:<node>' or 'event' (epoch 0).
CREATE TABLE consumer_cursor (
  consumer      TEXT COLLATE "C"  NOT NULL,
  source        TEXT COLLATE "C"  NOT NULL,
  epoch         BIGINT NOT NULL,
  sequence      BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  PRIMARY KEY (consumer, source)
);

-- Usage and money --------------------------------------------------------------------------------------------------

-- One row per call, leg and part. leg 0: the caller's, 1: the callee's.
CREATE TABLE usage (
  call_id       UUID   NOT NULL,
  leg           BIGINT NOT NULL,
  part          BIGINT NOT NULL,
  is_last       BOOLEAN   NOT NULL,
  account_id    UUID   NOT NULL,
  path          TEXT COLLATE "C"  NOT NULL,
  subscriber_id UUID,
  trunk_id      UUID,
  dialled       TEXT COLLATE "C"  NOT NULL,
  called        TEXT COLLATE "C",
  calling       TEXT COLLATE "C",
  invited_at    BIGINT NOT NULL,
  answered_at   BIGINT NOT NULL,
  ended_at      BIGINT NOT NULL,
  duration_ms   BIGINT NOT NULL,
  pdd_ms        BIGINT NOT NULL,
  cause         TEXT COLLATE "C"  NOT NULL,
  released_by   TEXT COLLATE "C"  NOT NULL,
  estimated     BOOLEAN   NOT NULL,
  -- the callee's 200 never became the caller's: nothing is sold, the supplier may charge
  aborted       BOOLEAN   NOT NULL,
  packets_received BIGINT,
  packets_sent  BIGINT,
  packets_lost  BIGINT,
  -- rated, suspense, or uncharged (nobody is charged for this leg)
  state         TEXT COLLATE "C"  NOT NULL,
  node          TEXT COLLATE "C"  NOT NULL,
  epoch         BIGINT NOT NULL,
  sequence      BIGINT NOT NULL,
  -- SHA-256 of the journal record: the same key with another body is a conflict
  raw_hash      BYTEA  NOT NULL,
  PRIMARY KEY (call_id, leg, part)
);
CREATE INDEX usage_path ON usage (path, answered_at);

CREATE TABLE rated (
  call_id       UUID   NOT NULL,
  leg           BIGINT NOT NULL,
  part          BIGINT NOT NULL,
  account_id    UUID   NOT NULL,
  side          TEXT COLLATE "C"  NOT NULL,
  version       BIGINT NOT NULL,
  -- dense, in commit order: files take rows by it
  sequence      BIGINT NOT NULL UNIQUE,
  batch_id      UUID   NOT NULL,
  path          TEXT COLLATE "C"  NOT NULL,
  tariff_id     UUID   NOT NULL,
  tariff_version BIGINT NOT NULL,
  prefix        TEXT COLLATE "C"  NOT NULL,
  billed_ms     BIGINT NOT NULL,
  currency      TEXT COLLATE "C"  NOT NULL,
  exact_numerator BIGINT NOT NULL,
  exact_denominator BIGINT NOT NULL,
  amount        BIGINT NOT NULL,
  answered_at   BIGINT NOT NULL,
  rated_at      BIGINT NOT NULL,
  PRIMARY KEY (call_id, leg, part, account_id, side, version)
);

-- The rows that a `rated` event names.
CREATE INDEX rated_batch ON rated (batch_id);

-- What could not be rated, with its reason; corrected and replayed, never dropped.
CREATE TABLE suspense (
  call_id       UUID   NOT NULL,
  leg           BIGINT NOT NULL,
  part          BIGINT NOT NULL,
  account_id    UUID   NOT NULL,
  side          TEXT COLLATE "C"  NOT NULL,
  path          TEXT COLLATE "C"  NOT NULL,
  code          TEXT COLLATE "C"  NOT NULL,
  detail        TEXT COLLATE "C"  NOT NULL,
  attempts      BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  resolved_at   BIGINT,
  PRIMARY KEY (call_id, leg, part, account_id, side)
);
CREATE INDEX suspense_open ON suspense (path, created_at);

-- A journal record that came again with another body, or that no rule can place: kept whole.
CREATE TABLE conflict (
  node          TEXT COLLATE "C"  NOT NULL,
  epoch         BIGINT NOT NULL,
  sequence      BIGINT NOT NULL,
  call_id       UUID   NOT NULL,
  leg           BIGINT NOT NULL,
  part          BIGINT NOT NULL,
  record        BYTEA  NOT NULL,
  detail        TEXT COLLATE "C"  NOT NULL,
  created_at    BIGINT NOT NULL,
  PRIMARY KEY (node, epoch, sequence, leg)
);

-- Postings per batch, account and book; the books of a batch sum to zero per currency.
-- sell: receivable (+) against revenue (-); buy: cost (+) against payable (-).
CREATE TABLE ledger (
  id            UUID   NOT NULL PRIMARY KEY,
  batch_id      UUID   NOT NULL,
  account_id    UUID   NOT NULL,
  path          TEXT COLLATE "C"  NOT NULL,
  book          TEXT COLLATE "C"  NOT NULL,
  currency      TEXT COLLATE "C"  NOT NULL,
  amount        BIGINT NOT NULL,
  rated_count   BIGINT NOT NULL,
  at            BIGINT NOT NULL,
  UNIQUE (batch_id, account_id, book, currency)
);
CREATE INDEX ledger_account ON ledger (account_id, at);

CREATE TABLE stream (
  id            UUID   NOT NULL PRIMARY KEY,
  account_id    UUID   NOT NULL REFERENCES account (id),
  name          TEXT COLLATE "C"  NOT NULL,
  -- rows of this side, charged at and below the account
  side          TEXT COLLATE "C"  NOT NULL,
  -- the open file is closed by the daemon after this time; 0: only on request
  close_period_ms BIGINT NOT NULL,
  next_sequence BIGINT NOT NULL,
  -- rows of rated up to this sequence have been considered
  rated_cursor  BIGINT NOT NULL,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL,
  UNIQUE (account_id, name)
);

CREATE TABLE billing_file (
  id            UUID   NOT NULL PRIMARY KEY,
  stream_id     UUID   NOT NULL REFERENCES stream (id),
  sequence      BIGINT NOT NULL,
  name          TEXT COLLATE "C"  NOT NULL,
  format_version BIGINT NOT NULL,
  -- planned (the item list is committed), published (the bytes lie under their final name)
  state         TEXT COLLATE "C"  NOT NULL,
  closure_reason TEXT COLLATE "C" NOT NULL,
  closed_at     BIGINT NOT NULL,
  record_count  BIGINT NOT NULL,
  billed_ms     BIGINT NOT NULL,
  -- JSON: totals per currency
  totals        TEXT COLLATE "C"  NOT NULL,
  first_answered_at BIGINT,
  last_answered_at BIGINT,
  -- the range of rated.sequence that was considered, half-open
  rated_from    BIGINT NOT NULL,
  rated_to      BIGINT NOT NULL,
  size          BIGINT,
  sha256        BYTEA,
  previous_sha256 BYTEA,
  -- accepted or rejected by the BSS
  ack_state     TEXT COLLATE "C",
  ack_reason    TEXT COLLATE "C",
  ack_by        TEXT COLLATE "C",
  ack_at        BIGINT,
  UNIQUE (stream_id, sequence)
);

CREATE TABLE billing_item (
  stream_id     UUID   NOT NULL,
  rated_sequence BIGINT NOT NULL,
  file_id       UUID   NOT NULL REFERENCES billing_file (id),
  position      BIGINT NOT NULL,
  PRIMARY KEY (stream_id, rated_sequence)
);
CREATE UNIQUE INDEX billing_item_file ON billing_item (file_id, position);

-- Faults -----------------------------------------------------------------------------------------------------------

-- A copy of the nodes' alarms for queries; the node is the authority.
CREATE TABLE alarm (
  node          TEXT COLLATE "C"  NOT NULL,
  id            BIGINT NOT NULL,
  type          TEXT COLLATE "C"  NOT NULL,
  resource      TEXT COLLATE "C"  NOT NULL,
  -- the account that the alarm belongs to; an alarm of the platform has the path ''
  path          TEXT COLLATE "C"  NOT NULL,
  severity      TEXT COLLATE "C"  NOT NULL,
  text          TEXT COLLATE "C"  NOT NULL,
  raised_at     BIGINT NOT NULL,
  changed_at    BIGINT NOT NULL,
  last_seen_at  BIGINT NOT NULL,
  cleared_at    BIGINT,
  count         BIGINT NOT NULL,
  acked_by      TEXT COLLATE "C",
  acked_at      BIGINT,
  ack_note      TEXT COLLATE "C",
  PRIMARY KEY (node, id)
);
CREATE INDEX alarm_path ON alarm (path, raised_at);

-- Acknowledgements on their way to the node.
CREATE TABLE alarm_ack (
  node          TEXT COLLATE "C"  NOT NULL,
  alarm_id      BIGINT NOT NULL,
  change_id     UUID   NOT NULL,
  acked_by      TEXT COLLATE "C"  NOT NULL,
  acked_at      BIGINT NOT NULL,
  note          TEXT COLLATE "C"  NOT NULL,
  applied_at    BIGINT,
  PRIMARY KEY (node, alarm_id, change_id)
);

-- Performance ------------------------------------------------------------------------------------------------------

-- Raw counts per 15 minutes UTC; never a percentage. Attempts count in the interval of their INVITE, conversation
-- time in that of the end. scope_kind: installation (nil id, path ''), account (at and below), trunk.
CREATE TABLE pm_interval (
  start_at      BIGINT NOT NULL,
  scope_kind    TEXT COLLATE "C"  NOT NULL,
  scope_id      UUID   NOT NULL,
  node          TEXT COLLATE "C"  NOT NULL,
  path          TEXT COLLATE "C"  NOT NULL,
  attempts      BIGINT NOT NULL,
  answered      BIGINT NOT NULL,
  user_busy     BIGINT NOT NULL,
  no_answer     BIGINT NOT NULL,
  terminal_reject BIGINT NOT NULL,
  address_error BIGINT NOT NULL,
  network_failure BIGINT NOT NULL,
  pdd_count     BIGINT NOT NULL,
  pdd_sum_ms    BIGINT NOT NULL,
  ended         BIGINT NOT NULL,
  conversation_ms BIGINT NOT NULL,
  estimated     BIGINT NOT NULL,
  packets_received BIGINT NOT NULL,
  packets_lost  BIGINT NOT NULL,
  revision      BIGINT NOT NULL,
  PRIMARY KEY (start_at, scope_kind, scope_id, node)
);
CREATE INDEX pm_interval_path ON pm_interval (path, start_at);

-- Money per 15 minutes of the answer, from the batches that were rated.
CREATE TABLE pm_revenue (
  start_at      BIGINT NOT NULL,
  account_id    UUID   NOT NULL,
  side          TEXT COLLATE "C"  NOT NULL,
  currency      TEXT COLLATE "C"  NOT NULL,
  path          TEXT COLLATE "C"  NOT NULL,
  rated_count   BIGINT NOT NULL,
  billed_ms     BIGINT NOT NULL,
  amount        BIGINT NOT NULL,
  PRIMARY KEY (start_at, account_id, side, currency)
);
CREATE INDEX pm_revenue_path ON pm_revenue (path, start_at);

CREATE TABLE report_run (
  id            UUID   NOT NULL PRIMARY KEY,
  definition    TEXT COLLATE "C"  NOT NULL,
  period        TEXT COLLATE "C"  NOT NULL,
  revision      BIGINT NOT NULL,
  account_id    UUID   NOT NULL,
  path          TEXT COLLATE "C"  NOT NULL,
  timezone      TEXT COLLATE "C"  NOT NULL,
  period_from   BIGINT NOT NULL,
  period_to     BIGINT NOT NULL,
  provisional   BOOLEAN   NOT NULL,
  -- due, running, finished, failed
  state         TEXT COLLATE "C"  NOT NULL,
  holder        TEXT COLLATE "C",
  lease_until   BIGINT,
  attempt       BIGINT NOT NULL,
  -- JSON: mail addresses
  recipients    TEXT COLLATE "C"  NOT NULL,
  -- JSON snapshot of the figures, taken once; rendering starts from it
  figures       TEXT COLLATE "C",
  html_sha256   BYTEA,
  csv_sha256    BYTEA,
  error         TEXT COLLATE "C",
  created_at    BIGINT NOT NULL,
  finished_at   BIGINT,
  UNIQUE (definition, period, revision)
);
CREATE INDEX report_run_path ON report_run (path, created_at);

-- Messages on their way out ------------------------------------------------------------------------------------------

-- One row per target that was ever sent to: its own dense sequence, and the epoch that a reset begins anew.
CREATE TABLE outbox_target (
  target        TEXT COLLATE "C"  NOT NULL PRIMARY KEY,
  epoch         BIGINT NOT NULL,
  next_sequence BIGINT NOT NULL
);

CREATE TABLE outbox (
  target        TEXT COLLATE "C"  NOT NULL,
  sequence      BIGINT NOT NULL,
  epoch         BIGINT NOT NULL,
  message_id    UUID   NOT NULL UNIQUE,
  kind          TEXT COLLATE "C"  NOT NULL,
  payload       TEXT COLLATE "C"  NOT NULL,
  -- pending, sent, failed (given up)
  state         TEXT COLLATE "C"  NOT NULL,
  attempts      BIGINT NOT NULL,
  next_attempt_at BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  sent_at       BIGINT,
  last_error    TEXT COLLATE "C",
  PRIMARY KEY (target, epoch, sequence)
);
CREATE INDEX outbox_due ON outbox (state, next_attempt_at);
-- The oldest pending message of a target is one look-up, however many were sent.
CREATE INDEX outbox_pending ON outbox (target, epoch, sequence) WHERE state = 'pending';
