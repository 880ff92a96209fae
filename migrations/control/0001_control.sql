-- The control tables: who the tenants are, what they were sold, what they used and what was reported to Stripe.
-- Rights are given by column, so that what must never change (a ledger row, a sealed report) cannot be changed by the
-- login that the Worker uses.

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'tollgate_service') THEN
    CREATE ROLE tollgate_service LOGIN NOINHERIT;
  END IF;
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO tollgate_service;
DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO tollgate_service', current_database());
END $$;

-- An intent to buy: made before payment, so that an unpaid visitor is not yet a tenant.
CREATE TABLE checkouts (
  tenant_id text PRIMARY KEY CHECK (tenant_id ~ '^[a-z0-9][a-z0-9_-]{0,39}$'),
  name text NOT NULL,
  email text,
  plan text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenants (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,39}$'),
  name text NOT NULL,
  email text,
  plan text NOT NULL,
  strategy text NOT NULL,
  state text NOT NULL CHECK (state IN ('provisioning', 'trial', 'active', 'past_due', 'suspended', 'leaving', 'gone')),
  trial_until timestamptz,
  limits jsonb NOT NULL,
  allowed_tools text[],
  -- Grows with every change of this row or of the tenant's keys; delivered_version is what the tenant's object confirmed.
  version bigint NOT NULL DEFAULT 1,
  delivered_version bigint NOT NULL DEFAULT 0,
  stripe_customer_id text UNIQUE,
  stripe_subscription_id text UNIQUE,
  created_at timestamptz NOT NULL DEFAULT now(),
  provisioned_at timestamptz,
  monitored_at timestamptz
);
CREATE INDEX tenants_undelivered ON tenants (id) WHERE delivered_version < version;
CREATE INDEX tenants_unfinished ON tenants (id) WHERE state = 'provisioning' OR monitored_at IS NULL;

CREATE TABLE api_keys (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  name text NOT NULL,
  -- SHA-256 of the whole key, in hex. The key itself is shown once and kept nowhere.
  hash text NOT NULL UNIQUE,
  scopes text[] NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz,
  revoked_at timestamptz
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id);

-- An issuer speaks only for the organisations that are linked here.
CREATE TABLE tenant_links (
  issuer text NOT NULL,
  organisation text NOT NULL,
  tenant_id text NOT NULL REFERENCES tenants (id),
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (issuer, organisation)
);
CREATE INDEX tenant_links_by_tenant ON tenant_links (tenant_id);

CREATE TABLE provisioning_attempts (
  tenant_id text NOT NULL REFERENCES tenants (id),
  attempt integer NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz,
  error text,
  PRIMARY KEY (tenant_id, attempt)
);

CREATE TABLE provisioning_steps (
  tenant_id text NOT NULL REFERENCES tenants (id),
  step text NOT NULL,
  attempt integer NOT NULL,
  started_at timestamptz NOT NULL,
  finished_at timestamptz,
  error text,
  PRIMARY KEY (tenant_id, step)
);

-- Stripe's events, kept before they are acknowledged and applied afterwards.
CREATE TABLE webhook_inbox (
  event_id text PRIMARY KEY,
  type text NOT NULL,
  tenant_id text,
  payload jsonb NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  applied_at timestamptz,
  outcome text,
  attempts integer NOT NULL DEFAULT 0,
  error text
);
CREATE INDEX webhook_inbox_pending ON webhook_inbox (tenant_id, received_at) WHERE applied_at IS NULL;

-- One row for every charged call, exactly once.
CREATE TABLE ledger (
  call_id text PRIMARY KEY,
  tenant_id text NOT NULL,
  object text NOT NULL,
  epoch text NOT NULL,
  n bigint NOT NULL,
  tool text NOT NULL,
  units integer NOT NULL CHECK (units > 0),
  at timestamptz NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  report_id text,
  UNIQUE (tenant_id, object, epoch, n)
);
CREATE INDEX ledger_unreported ON ledger (at) WHERE report_id IS NULL;
CREATE INDEX ledger_by_report ON ledger (report_id) WHERE report_id IS NOT NULL;

-- How far each object's sequence has arrived without a gap.
CREATE TABLE usage_streams (
  tenant_id text NOT NULL,
  object text NOT NULL,
  epoch text NOT NULL,
  watermark bigint NOT NULL,
  highest bigint NOT NULL,
  gap_since timestamptz,
  PRIMARY KEY (tenant_id, object, epoch)
);
CREATE INDEX usage_streams_gaps ON usage_streams (gap_since) WHERE gap_since IS NOT NULL;

-- The same key with another payload: never overwritten, always shown.
CREATE TABLE ledger_conflicts (
  call_id text NOT NULL,
  incoming jsonb NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT now(),
  UNIQUE (call_id, incoming)
);

-- What Stripe is told: sealed once, each with a minute of its own, so that one summary read proves whether it landed.
CREATE TABLE reports (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  slot timestamptz NOT NULL,
  units bigint NOT NULL CHECK (units > 0),
  calls bigint NOT NULL,
  sealed_at timestamptz NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  first_attempt_at timestamptz,
  last_attempt_at timestamptz,
  confirmed_at timestamptz,
  answer text,
  error text,
  UNIQUE (tenant_id, slot)
);
CREATE INDEX reports_unconfirmed ON reports (sealed_at) WHERE confirmed_at IS NULL;
ALTER TABLE ledger ADD FOREIGN KEY (report_id) REFERENCES reports (id);

-- When each recurring thing last happened: crons, webhooks, answers of Stripe.
CREATE TABLE heartbeats (
  name text PRIMARY KEY,
  at timestamptz NOT NULL
);

GRANT SELECT ON ALL TABLES IN SCHEMA public TO tollgate_service;
GRANT INSERT ON checkouts, tenants, api_keys, tenant_links, provisioning_attempts, provisioning_steps, webhook_inbox,
  ledger, usage_streams, ledger_conflicts, reports, heartbeats TO tollgate_service;
GRANT UPDATE ON tenants, provisioning_attempts, provisioning_steps, usage_streams, heartbeats TO tollgate_service;
GRANT UPDATE (revoked_at) ON api_keys TO tollgate_service;
GRANT UPDATE (applied_at, outcome, attempts, error) ON webhook_inbox TO tollgate_service;
GRANT UPDATE (report_id) ON ledger TO tollgate_service;
GRANT UPDATE (attempts, first_attempt_at, last_attempt_at, confirmed_at, answer, error) ON reports TO tollgate_service;
