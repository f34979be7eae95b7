-- What the journal of a node said of its life: first and latest record, and whether the latest ended a run in order.
CREATE TABLE pm_node (
  node          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  since         BIGINT NOT NULL,
  last_sign_at  BIGINT NOT NULL,
  stopped       BOOLEAN   NOT NULL
);

-- When it was down: from its last sign of life to the next. cause: stopped, failed.
CREATE TABLE pm_outage (
  node          TEXT COLLATE "C" NOT NULL,
  begin_at      BIGINT NOT NULL,
  end_at        BIGINT NOT NULL,
  cause         TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY (node, begin_at)
);
