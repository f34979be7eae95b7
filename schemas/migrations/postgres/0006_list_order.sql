-- Lists of usage, rated usage, suspense and balances go account by account, then in the order of the key, so that a
-- page is one walk along an index however much others have.
CREATE INDEX usage_list ON usage (path, call_id, leg, part);
CREATE INDEX rated_list ON rated (path, call_id, leg, part, account_id, side, version);
CREATE INDEX suspense_list ON suspense (path, call_id, leg, part, account_id, side) WHERE resolved_at IS NULL;
CREATE INDEX ledger_list ON ledger (path, account_id, book, currency);
