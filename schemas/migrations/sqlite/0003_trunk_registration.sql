-- The registration that a carrier wants from us; all three or none.
-- IP address and port that REGISTER goes to
ALTER TABLE trunk ADD COLUMN registrar TEXT;
-- host of our address of record there
ALTER TABLE trunk ADD COLUMN registration_domain TEXT;
-- what is wished for, seconds
ALTER TABLE trunk ADD COLUMN registration_expires_s INTEGER;
