-- Nobody asks how far a run was looked at for rows that are gone.
ALTER TABLE key_run DROP COLUMN checked;

-- How many rows there are from a place on, and how many runs: what is lost of them would make a known
-- key a new one. No row is counted until the next run is written.
ALTER TABLE applied ADD COLUMN counted_from INTEGER NOT NULL DEFAULT 9223372036854775807;
ALTER TABLE applied ADD COLUMN counted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE applied ADD COLUMN runs INTEGER NOT NULL DEFAULT 0;
UPDATE applied SET runs = (SELECT count(*) FROM key_run);
