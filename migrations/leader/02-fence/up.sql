-- JSON of what a leader that was restored from a backup waits for before it places pods; NULL once it is over, and for a leader that wasn't.
ALTER TABLE meta ADD COLUMN fence TEXT;
