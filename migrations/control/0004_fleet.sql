-- Fleet migrations, which run over tenants' own schemas, one run at a time: the options, the progress and each schema's
-- result. The placement holds the version of each schema.

CREATE TABLE migration_runs (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- done: every schema has the version. failed: all were tried, some failed. stopped: it ended before all were tried.
  state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed', 'stopped')),
  started_by text NOT NULL,
  options jsonb NOT NULL,
  -- What executes it. The sweep restarts a Workflow without heartbeats, but not a terminal.
  runner text NOT NULL CHECK (runner IN ('workflow', 'terminal')),
  -- Grows when another runner takes over; the runner of an earlier attempt notices and stops.
  attempt integer NOT NULL DEFAULT 1,
  -- NULL before planning.
  plan jsonb,
  -- Placements that are tried before all others.
  cohort bigint[] NOT NULL DEFAULT '{}',
  -- Every placement up to this one, outside of the cohort, was tried.
  reached bigint NOT NULL DEFAULT 0,
  applied integer NOT NULL DEFAULT 0,
  -- Schemas that had the version already, because an answer was lost or another run was faster.
  current integer NOT NULL DEFAULT 0,
  failed integer NOT NULL DEFAULT 0,
  drifted integer NOT NULL DEFAULT 0,
  busy integer NOT NULL DEFAULT 0,
  peak_connections integer NOT NULL DEFAULT 0,
  stop_requested boolean NOT NULL DEFAULT false,
  -- Why it stopped, in Tollgate's words.
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
  -- In Tollgate's words: a database's message may quote rows.
  reason text,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (run_id, placement_id)
);
CREATE INDEX migration_results_by_placement ON migration_results (placement_id, run_id DESC);

GRANT SELECT, INSERT ON migration_runs, migration_results TO tollgate_service;
GRANT UPDATE ON migration_runs TO tollgate_service;
