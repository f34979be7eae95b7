-- A sum of any number of amounts fits: whole millions of units here, the rest in amount, which held all before.
ALTER TABLE pm_revenue ADD COLUMN amount_millions BIGINT NOT NULL DEFAULT 0;
