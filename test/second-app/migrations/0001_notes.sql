-- The notes that `keep_note` keeps.
CREATE TABLE notes (
  tenant_id text NOT NULL,
  name text NOT NULL,
  text text NOT NULL,
  PRIMARY KEY (tenant_id, name)
);
SELECT tollgate.isolate('notes');
