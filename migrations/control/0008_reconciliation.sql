-- The daily comparison of reports with Stripe's totals, and the errors that Stripe's meter reports by itself.

-- One comparison a day. It proceeds tenant by tenant, and the next run of the cron resumes it.
CREATE TABLE reconciliations (
  -- The UTC day before which usage is compared.
  day date PRIMARY KEY,
  started_at timestamptz NOT NULL,
  -- The last tenant that was compared, in the order of ids.
  done_until text COLLATE "C" NOT NULL DEFAULT '',
  claimed_until timestamptz,
  tenants integer NOT NULL DEFAULT 0,
  requests integer NOT NULL DEFAULT 0,
  unread_tenants integer NOT NULL DEFAULT 0,
  finished_at timestamptz
);

-- A range in which Stripe has other units than the reports. A later comparison that finds both equal closes it.
CREATE TABLE drifts (
  tenant_id text NOT NULL REFERENCES tenants (id),
  starts_at timestamptz NOT NULL,
  -- Length of the range in minutes: 1, unless there were too many differences to compare each minute.
  minutes integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('missing', 'less', 'more', 'unknown', 'unexplored')),
  report_id text REFERENCES reports (id),
  reported_units bigint NOT NULL,
  stripe_units bigint NOT NULL,
  found_at timestamptz NOT NULL,
  seen_at timestamptz NOT NULL,
  closed_at timestamptz,
  PRIMARY KEY (tenant_id, starts_at, minutes)
);
CREATE INDEX drifts_open ON drifts (tenant_id, starts_at) WHERE closed_at IS NULL;

-- A closed period whose invoices have other units than its calls. A later comparison that finds both equal closes it.
CREATE TABLE invoice_drifts (
  tenant_id text NOT NULL REFERENCES tenants (id),
  subscription_id text NOT NULL,
  starts_at timestamptz NOT NULL,
  -- The plan at whose price the units are on the invoices.
  plan text NOT NULL,
  -- Units of the period's calls that went to Stripe's meter under that plan.
  earned_units bigint NOT NULL,
  invoiced_units bigint NOT NULL,
  found_at timestamptz NOT NULL,
  seen_at timestamptz NOT NULL,
  closed_at timestamptz,
  PRIMARY KEY (tenant_id, subscription_id, starts_at, plan)
);
CREATE INDEX invoice_drifts_open ON invoice_drifts (tenant_id) WHERE closed_at IS NULL;

-- Meter events that Stripe accepted and later refused: counts by error code, and some report ids as samples.
CREATE TABLE meter_errors (
  event_id text NOT NULL,
  code text NOT NULL,
  errors bigint NOT NULL,
  -- Reports that Stripe's samples name.
  report_ids text[] NOT NULL,
  from_at timestamptz NOT NULL,
  until_at timestamptz NOT NULL,
  PRIMARY KEY (event_id, code)
);
CREATE INDEX meter_errors_by_time ON meter_errors (until_at);

GRANT SELECT, INSERT ON reconciliations, drifts, invoice_drifts, meter_errors TO tollgate_service;
GRANT UPDATE (done_until, claimed_until, tenants, requests, unread_tenants, finished_at) ON reconciliations TO tollgate_service;
GRANT UPDATE (earned_units, invoiced_units, seen_at, closed_at) ON invoice_drifts TO tollgate_service;
GRANT UPDATE (kind, report_id, reported_units, stripe_units, seen_at, closed_at) ON drifts TO tollgate_service;
