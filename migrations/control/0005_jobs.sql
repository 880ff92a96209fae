-- Work on one tenant's data that takes longer than a request: backups, restores, imports. A row is all that a job knows of
-- itself, so that whoever goes on with it, after whatever ended, finds where it stood.

CREATE TABLE jobs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  kind text NOT NULL CHECK (kind IN ('backup', 'restore', 'import')),
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed')),
  -- What was asked for, and under `key` the file in the bucket.
  request jsonb NOT NULL,
  -- Where the next piece begins.
  progress jsonb NOT NULL DEFAULT '{}',
  -- Grows with every piece: one that comes late finds another number.
  version integer NOT NULL DEFAULT 0,
  -- Of pieces, in a row.
  failures integer NOT NULL DEFAULT 0,
  -- What came of it, for whoever looks.
  result jsonb,
  -- In our words: what a database says may quote rows.
  error text,
  started_at timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);
CREATE INDEX jobs_by_tenant ON jobs (tenant_id, kind, id);
CREATE INDEX jobs_running ON jobs (progressed_at) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_one_at_a_time ON jobs (tenant_id, kind) WHERE state = 'running' AND kind <> 'backup';
CREATE UNIQUE INDEX jobs_one_file_each ON jobs ((request ->> 'key')) WHERE kind = 'backup';

-- What the operator has switched on for a tenant; tools read it.
ALTER TABLE tenants ADD COLUMN features jsonb NOT NULL DEFAULT '{}';
-- When the log of changes was last shortened there.
ALTER TABLE shards ADD COLUMN pruned_at timestamptz;

GRANT SELECT, INSERT ON jobs TO tollgate_service;
GRANT UPDATE (state, progress, version, failures, result, error, progressed_at, finished_at) ON jobs TO tollgate_service;
GRANT UPDATE (pruned_at) ON shards TO tollgate_service;
