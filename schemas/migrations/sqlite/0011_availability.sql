-- What the journal of a node said of its life: first and latest record, and whether the latest ended a run in order.
CREATE TABLE pm_node (
  node          TEXT  NOT NULL PRIMARY KEY,
  since         INTEGER NOT NULL,
  last_sign_at  INTEGER NOT NULL,
  stopped       INTEGER   NOT NULL
) STRICT;

-- When it was down: from its last sign of life to the next. cause: stopped, failed.
CREATE TABLE pm_outage (
  node          TEXT  NOT NULL,
  begin_at      INTEGER NOT NULL,
  end_at        INTEGER NOT NULL,
  cause         TEXT  NOT NULL,
  PRIMARY KEY (node, begin_at)
) STRICT;
