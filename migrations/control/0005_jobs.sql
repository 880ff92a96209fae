-- Work on one tenant's data that takes longer than a request: backups, restores, imports. A row holds the whole state of a
-- job, so that any later step can resume it.

CREATE TABLE jobs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  kind text NOT NULL CHECK (kind IN ('backup', 'restore', 'import')),
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
  -- The request, with the file's key in the bucket under `key`.
  request jsonb NOT NULL,
  -- Where the next step begins.
  progress jsonb NOT NULL DEFAULT '{}',
  -- Grows with every step, so that a late step finds another number.
  version integer NOT NULL DEFAULT 0,
  -- Failed steps in a row.
  failures integer NOT NULL DEFAULT 0,
  -- The result, for the API.
  result jsonb,
  -- In Tollgate's words: a database's message may quote rows.
  error text,
  started_at timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);
CREATE INDEX jobs_by_tenant ON jobs (tenant_id, kind, id);
CREATE INDEX jobs_running ON jobs (progressed_at) WHERE state = 'running';
CREATE UNIQUE INDEX jobs_one_at_a_time ON jobs (tenant_id, kind) WHERE state = 'running' AND kind <> 'backup';
CREATE UNIQUE INDEX jobs_one_file_each ON jobs ((request ->> 'key')) WHERE kind = 'backup';

GRANT SELECT, INSERT ON jobs TO tollgate_service;
GRANT UPDATE (state, progress, version, failures, result, error, progressed_at, finished_at) ON jobs TO tollgate_service;
