-- Settings are read by ranges of their names, whatever order the database has for texts.
ALTER TABLE setting ALTER COLUMN name TYPE text COLLATE "C";
