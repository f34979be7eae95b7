-- Targets of notifications, and synchronisations that were asked for.

-- As each node has them in its configuration: written at its start.
CREATE TABLE notification_target (
  node          TEXT  NOT NULL,
  target        TEXT  NOT NULL,
  PRIMARY KEY (node, target)
) STRICT;

-- On their way to the node.
CREATE TABLE notification_resync (
  node          TEXT  NOT NULL,
  target        TEXT  NOT NULL,
  change_id     BLOB   NOT NULL,
  requested_at  INTEGER NOT NULL,
  applied_at    INTEGER,
  PRIMARY KEY (node, target, change_id)
) STRICT;

-- Which alarm was meant: numbers begin again when a node lost its database. Empty in rows of before.
ALTER TABLE alarm_ack ADD COLUMN raised_at INTEGER;
