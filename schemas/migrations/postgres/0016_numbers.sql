-- For whom a number that nobody answers is kept, and until when: 'reserved' for an account, or 'quarantined' after the
-- account gave it back. One that has ended is as none.
ALTER TABLE number ADD COLUMN hold TEXT COLLATE "C";
ALTER TABLE number ADD COLUMN hold_account UUID REFERENCES account (id);
ALTER TABLE number ADD COLUMN hold_until BIGINT;
