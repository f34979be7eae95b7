-- A file that was sent: its lines wait in bulk_line, sealed, until each has its result.
CREATE TABLE bulk_job (
  id            BLOB   NOT NULL PRIMARY KEY,
  -- names of the lines are read from this account down
  account_id    BLOB   NOT NULL REFERENCES account (id),
  name          TEXT NOT NULL,
  -- uploading, staged, running, finished, refused, cancelled, stopped
  state         TEXT NOT NULL,
  -- per_line, all_or_nothing, check
  mode          TEXT,
  total         INTEGER NOT NULL,
  applied       INTEGER NOT NULL,
  unchanged     INTEGER NOT NULL,
  refused       INTEGER NOT NULL,
  -- with whose rights it runs
  token_id      BLOB   REFERENCES api_token (id),
  started_by    TEXT,
  reason        TEXT,
  started_at    INTEGER,
  finished_at   INTEGER,
  -- grows with each start: what an earlier one left undone is not done by it
  run           INTEGER NOT NULL DEFAULT 0,
  -- turns in a row that came to nothing
  failures      INTEGER NOT NULL DEFAULT 0,
  -- when it had its last turn: jobs that run take turns
  stepped_at    INTEGER NOT NULL,
  version       INTEGER NOT NULL,
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL
) STRICT;
CREATE INDEX bulk_job_account ON bulk_job (account_id, id);
CREATE INDEX bulk_job_running ON bulk_job (stepped_at) WHERE state = 'running';

CREATE TABLE bulk_line (
  job_id        BLOB   NOT NULL REFERENCES bulk_job (id) ON DELETE CASCADE,
  line          INTEGER NOT NULL,
  sealed        BLOB NOT NULL,
  PRIMARY KEY (job_id, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE bulk_result (
  job_id        BLOB   NOT NULL REFERENCES bulk_job (id) ON DELETE CASCADE,
  line          INTEGER NOT NULL,
  -- applied, unchanged, refused
  outcome       TEXT NOT NULL,
  kind          TEXT,
  resource_id   BLOB  ,
  -- separated by spaces
  changes       TEXT,
  -- JSON
  refusals      TEXT,
  -- the SIP password that was drawn, sealed
  password      BLOB,
  PRIMARY KEY (job_id, line)
) STRICT, WITHOUT ROWID;
