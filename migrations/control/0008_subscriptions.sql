-- What Stripe's subscriptions say of a tenant, changes of plan on their way, and what Stripe's meter refused afterwards.

ALTER TABLE tenants
  -- Who has suspended it; NULL with a tenant that is suspended: the operator, before this was kept.
  ADD COLUMN suspended_by text,
  -- Since when an invoice is not paid; service ends a stated time after that.
  ADD COLUMN past_due_since timestamptz,
  ADD COLUMN period_start timestamptz,
  ADD COLUMN period_end timestamptz,
  -- When the subscription ends, because somebody has cancelled it; when it has ended.
  ADD COLUMN cancel_at timestamptz,
  ADD COLUMN subscription_ended_at timestamptz;

-- A change of plan takes effect after all usage of before is confirmed. A row is all that it knows of itself, so that
-- whoever goes on with it, after whatever ended, finds where it stood.
CREATE TABLE plan_changes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  from_plan text NOT NULL,
  plan text NOT NULL,
  strategy text NOT NULL CHECK (strategy IN ('shared', 'schema', 'database')),
  limits jsonb NOT NULL,
  requested_by text NOT NULL CHECK (requested_by IN ('operator', 'tenant')),
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'cancelled')),
  -- Of changes at Stripe, each with an idempotency key of its own, recorded before it is made.
  attempts integer NOT NULL DEFAULT 0,
  -- For how long the tenant's calls were held back at the last attempt.
  hold_ms integer,
  -- What it waits for, in our words.
  waits_for text,
  requested_at timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);
CREATE UNIQUE INDEX plan_changes_waiting ON plan_changes (tenant_id) WHERE state = 'waiting';
CREATE INDEX plan_changes_by_tenant ON plan_changes (tenant_id, id);

-- Meter events that Stripe took and refused later: counts by what was wrong, and a few of them by name.
CREATE TABLE meter_errors (
  event_id text NOT NULL,
  code text NOT NULL,
  errors bigint NOT NULL,
  -- Of reports, as far as Stripe's samples name them.
  report_ids text[] NOT NULL,
  from_at timestamptz NOT NULL,
  until_at timestamptz NOT NULL,
  PRIMARY KEY (event_id, code)
);
CREATE INDEX meter_errors_by_time ON meter_errors (until_at);

GRANT SELECT, INSERT ON plan_changes, meter_errors TO tollgate_service;
GRANT UPDATE (state, attempts, hold_ms, waits_for, progressed_at, finished_at) ON plan_changes TO tollgate_service;
