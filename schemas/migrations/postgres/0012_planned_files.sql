-- The files that are closed and not written are looked for every few seconds, among all that ever were.
CREATE INDEX billing_file_planned ON billing_file (stream_id, sequence) WHERE state = 'planned';
