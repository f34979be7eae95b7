-- How each leg sounded, as the relay measured it (codec is null where no audio came from the leg). Jitter and round trip
-- in microseconds, mean opinion scores in hundredths. 'reported' is what the leg's own RTCP says of what it heard.
ALTER TABLE usage ADD COLUMN codec TEXT;
ALTER TABLE usage ADD COLUMN packets_duplicate BIGINT;
ALTER TABLE usage ADD COLUMN packets_late BIGINT;
ALTER TABLE usage ADD COLUMN loss_run_max BIGINT;
ALTER TABLE usage ADD COLUMN jitter_us BIGINT;
ALTER TABLE usage ADD COLUMN jitter_max_us BIGINT;
ALTER TABLE usage ADD COLUMN round_trip_us BIGINT;
ALTER TABLE usage ADD COLUMN mos BIGINT;
ALTER TABLE usage ADD COLUMN reported_lost BIGINT;
ALTER TABLE usage ADD COLUMN reported_jitter_us BIGINT;
ALTER TABLE usage ADD COLUMN reported_mos BIGINT;
