-- Which changes touched a resource: its history.
CREATE TABLE audit_resource (
  resource_id   BLOB NOT NULL,
  sequence      INTEGER NOT NULL,
  PRIMARY KEY (resource_id, sequence)
) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO audit_resource (resource_id, sequence)
  SELECT unhex(replace(json_extract(effect.value, '$.resource.id'), '-', '')), audit.sequence
  FROM audit, json_each(audit.plan, '$.effects') effect;

-- Which change takes which one back, and whether it does so still: a reversal can be taken back itself.
CREATE TABLE reversal (
  change_id     BLOB NOT NULL PRIMARY KEY,
  reverts       BLOB NOT NULL REFERENCES audit (change_id),
  in_force      INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX reversal_in_force ON reversal (reverts) WHERE in_force;

-- Credentials of subscribers that were removed, sealed as they were: the removal can be taken back for a while.
CREATE TABLE kept_credentials (
  subscriber_id BLOB NOT NULL PRIMARY KEY,
  ha1_md5       BLOB NOT NULL,
  ha1_sha256    BLOB NOT NULL,
  kept_at       INTEGER NOT NULL
) STRICT;
CREATE INDEX kept_credentials_at ON kept_credentials (kept_at);
