-- The workbook beside page and table; none for runs from before.
ALTER TABLE report_run ADD COLUMN xlsx_sha256 BLOB;
-- What the detector of reports looks for: few rows of many.
CREATE INDEX report_run_failed ON report_run (created_at, id) WHERE state = 'failed';
CREATE INDEX report_run_month ON report_run (account_id, period);
