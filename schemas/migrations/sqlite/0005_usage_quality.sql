-- How each leg sounded, as the relay measured it (codec is null where no audio came from the leg). Jitter and round trip
-- in microseconds, mean opinion scores in hundredths. 'reported' is what the leg's own RTCP says of what it heard.
ALTER TABLE usage ADD COLUMN codec TEXT;
ALTER TABLE usage ADD COLUMN packets_duplicate INTEGER;
ALTER TABLE usage ADD COLUMN packets_late INTEGER;
ALTER TABLE usage ADD COLUMN loss_run_max INTEGER;
ALTER TABLE usage ADD COLUMN jitter_us INTEGER;
ALTER TABLE usage ADD COLUMN jitter_max_us INTEGER;
ALTER TABLE usage ADD COLUMN round_trip_us INTEGER;
ALTER TABLE usage ADD COLUMN mos INTEGER;
ALTER TABLE usage ADD COLUMN reported_lost INTEGER;
ALTER TABLE usage ADD COLUMN reported_jitter_us INTEGER;
ALTER TABLE usage ADD COLUMN reported_mos INTEGER;
