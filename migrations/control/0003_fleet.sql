-- Migrations of the tenants' own schemas, one run at a time: what a run was asked to do, how far it is, and how each
-- schema came out of it. Placements say which version each schema has; a run is what brought them there.

CREATE TABLE migration_runs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- done: every schema is there. failed: every one was tried, and some are not. stopped: before all were tried.
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed', 'stopped')),
  started_by text NOT NULL,
  options jsonb NOT NULL,
  -- Who executes it: a Workflow, which is started again when it goes silent, or a terminal, which is not.
  runner text NOT NULL CHECK (runner IN ('workflow', 'terminal')),
  -- Grows when somebody else takes it up; whoever executes an earlier attempt notices and leaves.
  attempt integer NOT NULL DEFAULT 1,
  -- NULL until it is planned.
  plan jsonb,
  -- Those that are tried before all others.
  cohort bigint[] NOT NULL DEFAULT '{}',
  -- Every other placement up to this one was tried.
  reached bigint NOT NULL DEFAULT 0,
  applied integer NOT NULL DEFAULT 0,
  -- Found to be there already, because an answer was lost or another run was faster.
  current integer NOT NULL DEFAULT 0,
  failed integer NOT NULL DEFAULT 0,
  drifted integer NOT NULL DEFAULT 0,
  busy integer NOT NULL DEFAULT 0,
  peak_connections integer NOT NULL DEFAULT 0,
  stop_requested boolean NOT NULL DEFAULT false,
  -- Why it stopped, in our words.
  reason text,
  started_at timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);
CREATE UNIQUE INDEX migration_runs_running ON migration_runs ((true)) WHERE state = 'running';

CREATE TABLE migration_results (
  run_id bigint NOT NULL REFERENCES migration_runs (id),
  placement_id bigint NOT NULL REFERENCES placements (id),
  outcome text NOT NULL CHECK (outcome IN ('applied', 'current', 'failed', 'drifted', 'busy')),
  tries integer NOT NULL,
  took_ms integer NOT NULL,
  sql_state text,
  -- In our words: what a database says may quote rows.
  reason text,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (run_id, placement_id)
);
CREATE INDEX migration_results_by_placement ON migration_results (placement_id, run_id DESC);

GRANT SELECT, INSERT ON migration_runs, migration_results TO tollgate_service;
GRANT UPDATE ON migration_runs TO tollgate_service;
