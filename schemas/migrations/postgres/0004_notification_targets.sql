-- Targets of notifications, and synchronisations that were asked for.

-- As each node has them in its configuration: written at its start.
CREATE TABLE notification_target (
  node          TEXT COLLATE "C"  NOT NULL,
  target        TEXT COLLATE "C"  NOT NULL,
  PRIMARY KEY (node, target)
);

-- On their way to the node.
CREATE TABLE notification_resync (
  node          TEXT COLLATE "C"  NOT NULL,
  target        TEXT COLLATE "C"  NOT NULL,
  change_id     UUID   NOT NULL,
  requested_at  BIGINT NOT NULL,
  applied_at    BIGINT,
  PRIMARY KEY (node, target, change_id)
);

-- Which alarm was meant: numbers begin again when a node lost its database. Empty in rows of before.
ALTER TABLE alarm_ack ADD COLUMN raised_at BIGINT;
