-- Which changes touched a resource: its history.
CREATE TABLE audit_resource (
  resource_id   UUID NOT NULL,
  sequence      BIGINT NOT NULL,
  PRIMARY KEY (resource_id, sequence)
);
INSERT INTO audit_resource (resource_id, sequence)
  SELECT (effect -> 'resource' ->> 'id')::uuid, audit.sequence
  FROM audit, json_array_elements(audit.plan::json -> 'effects') effect
  ON CONFLICT DO NOTHING;

-- Which change takes which one back, and whether it does so still: a reversal can be taken back itself.
CREATE TABLE reversal (
  change_id     UUID NOT NULL PRIMARY KEY,
  reverts       UUID NOT NULL REFERENCES audit (change_id),
  in_force      BOOLEAN NOT NULL
);
CREATE UNIQUE INDEX reversal_in_force ON reversal (reverts) WHERE in_force;

-- Credentials of subscribers that were removed, sealed as they were: the removal can be taken back for a while.
CREATE TABLE kept_credentials (
  subscriber_id UUID NOT NULL PRIMARY KEY,
  ha1_md5       BYTEA NOT NULL,
  ha1_sha256    BYTEA NOT NULL,
  kept_at       BIGINT NOT NULL
);
CREATE INDEX kept_credentials_at ON kept_credentials (kept_at);
