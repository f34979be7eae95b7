-- From where a token may be used (networks, separated by spaces; none: from anywhere), when it was last used, and the
-- token that a rotation replaced, which works beside it for a while.
ALTER TABLE api_token ADD COLUMN networks TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE api_token ADD COLUMN last_used_at BIGINT;
ALTER TABLE api_token ADD COLUMN previous_hash BYTEA;
ALTER TABLE api_token ADD COLUMN previous_until BIGINT;
CREATE UNIQUE INDEX api_token_previous ON api_token (previous_hash);
