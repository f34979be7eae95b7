-- A file that was sent: its lines wait in bulk_line, sealed, until each has its result.
CREATE TABLE bulk_job (
  id            UUID NOT NULL PRIMARY KEY,
  -- names of the lines are read from this account down
  account_id    UUID NOT NULL REFERENCES account (id),
  name          TEXT COLLATE "C" NOT NULL,
  -- uploading, staged, running, finished, refused, cancelled, stopped
  state         TEXT COLLATE "C" NOT NULL,
  -- per_line, all_or_nothing, check
  mode          TEXT COLLATE "C",
  total         BIGINT NOT NULL,
  applied       BIGINT NOT NULL,
  unchanged     BIGINT NOT NULL,
  refused       BIGINT NOT NULL,
  -- with whose rights it runs
  token_id      UUID REFERENCES api_token (id),
  started_by    TEXT COLLATE "C",
  reason        TEXT COLLATE "C",
  started_at    BIGINT,
  finished_at   BIGINT,
  -- grows with each start: what an earlier one left undone is not done by it
  run           BIGINT NOT NULL DEFAULT 0,
  -- turns in a row that came to nothing
  failures      BIGINT NOT NULL DEFAULT 0,
  -- when it had its last turn: jobs that run take turns
  stepped_at    BIGINT NOT NULL,
  version       BIGINT NOT NULL,
  created_at    BIGINT NOT NULL,
  updated_at    BIGINT NOT NULL
);
CREATE INDEX bulk_job_account ON bulk_job (account_id, id);
CREATE INDEX bulk_job_running ON bulk_job (stepped_at) WHERE state = 'running';

CREATE TABLE bulk_line (
  job_id        UUID NOT NULL REFERENCES bulk_job (id) ON DELETE CASCADE,
  line          BIGINT NOT NULL,
  sealed        BYTEA NOT NULL,
  PRIMARY KEY (job_id, line)
);

CREATE TABLE bulk_result (
  job_id        UUID NOT NULL REFERENCES bulk_job (id) ON DELETE CASCADE,
  line          BIGINT NOT NULL,
  -- applied, unchanged, refused
  outcome       TEXT COLLATE "C" NOT NULL,
  kind          TEXT COLLATE "C",
  resource_id   UUID,
  -- separated by spaces
  changes       TEXT COLLATE "C",
  -- JSON
  refusals      TEXT COLLATE "C",
  -- the SIP password that was drawn, sealed
  password      BYTEA,
  PRIMARY KEY (job_id, line)
);
