-- Figures of the tenants' calls, for pages and monitors. The ledger decides what a customer pays; these rows never do.

-- One row for each tenant, hour, tool, caller and outcome. src/metering/metrics/fold.ts says what each column means.
CREATE TABLE metrics_hourly (
  tenant_id text NOT NULL REFERENCES tenants (id),
  hour timestamptz NOT NULL,
  tool text NOT NULL,
  caller text NOT NULL,
  outcome text NOT NULL CHECK (outcome IN ('ok', 'failed', 'refused', 'repeated')),
  code text NOT NULL,
  calls bigint NOT NULL,
  units bigint NOT NULL,
  ms bigint NOT NULL,
  db_ms bigint NOT NULL,
  -- Calls by bucket of latency.
  latency bigint[] NOT NULL,
  PRIMARY KEY (tenant_id, hour, tool, caller, outcome, code)
);
-- Finds the rows whose retention has ended.
CREATE INDEX metrics_hourly_by_hour ON metrics_hourly (hour);

-- The same for the whole deployment since its first call. Monitors read counters, which never fall.
CREATE TABLE metric_totals (
  tool text NOT NULL,
  plan text NOT NULL,
  outcome text NOT NULL,
  code text NOT NULL,
  calls bigint NOT NULL,
  units bigint NOT NULL,
  ms bigint NOT NULL,
  db_ms bigint NOT NULL,
  latency bigint[] NOT NULL,
  PRIMARY KEY (tool, plan, outcome, code)
);

-- The last fold of each object that was added, and the one before it. A fold that comes again is not added again.
CREATE TABLE metric_streams (
  tenant_id text NOT NULL REFERENCES tenants (id),
  epoch text NOT NULL,
  n bigint NOT NULL,
  previous bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, epoch)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON metrics_hourly TO tollgate_service;
GRANT SELECT, INSERT, UPDATE ON metric_totals, metric_streams TO tollgate_service;
