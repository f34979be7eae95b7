-- Counted starts of the node in each alarm; nothing read it, and counting wrote at every look at the list.

ALTER TABLE alarm DROP COLUMN generation;
DELETE FROM node_meta WHERE key = 'alarm_generation';
