-- The tenants and the terms that they bought. All files of this folder grant rights by column, so that the Worker's login
-- cannot change rows that must never change, such as a ledger row or a frozen report.

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

-- Whether a customer may have this id, as `TenantId` in src/core/tenant.ts decides. Ids with the prefix canary- are the
-- tenants of the isolation proof.
CREATE FUNCTION is_tenant_id(id text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN id ~ '^[a-z0-9][a-z0-9_-]{0,39}$' AND NOT starts_with(id, 'canary-');

-- An order. Written before payment, so that an unpaid visitor is not a tenant yet.
CREATE TABLE checkouts (
  tenant_id text PRIMARY KEY CHECK (is_tenant_id(tenant_id)),
  name text NOT NULL,
  email text,
  plan text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tenants (
  id text PRIMARY KEY CHECK (is_tenant_id(id)),
  name text NOT NULL,
  email text,
  plan text NOT NULL,
  strategy text NOT NULL,
  -- The region that the tenant's contract requires. NULL: any region.
  region text,
  state text NOT NULL CHECK (state IN ('provisioning', 'trial', 'active', 'past_due', 'suspended', 'leaving', 'gone')),
  limits jsonb NOT NULL,
  allowed_tools text[],
  -- Features that the operator has switched on for the tenant. Tools read them.
  features jsonb NOT NULL DEFAULT '{}',
  -- Grows with every change of this row or of the tenant's keys. delivered_version is the version that the tenant's object
  -- has confirmed.
  version bigint NOT NULL DEFAULT 1,
  delivered_version bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  provisioned_at timestamptz,
  monitored_at timestamptz,
  -- Monitor tokens of an earlier generation are revoked.
  monitor_generation integer NOT NULL DEFAULT 1,
  -- The subscription at Stripe, as last read.
  stripe_customer_id text UNIQUE,
  stripe_subscription_id text UNIQUE,
  trial_until timestamptz,
  -- Who suspended the tenant. A Stripe event never ends a suspension by the operator.
  suspended_by text,
  -- Since when an invoice is unpaid. Service ends a stated time later.
  past_due_since timestamptz,
  period_start timestamptz,
  period_end timestamptz,
  -- When the plan took effect, and what earlier plans of that billing period have cost beyond their included units. NULL: the
  -- plan is older than the period, or as old.
  plan_since timestamptz,
  spent_before_cents numeric NOT NULL DEFAULT 0,
  -- When a cancelled subscription will end, and when it has ended.
  cancel_at timestamptz,
  subscription_ended_at timestamptz,
  -- The end of the time in which the tenant can be reactivated. NULL unless it leaves or has left.
  leaving_until timestamptz,
  -- When the tenant was erased. Afterwards only this row, the ledger and the reports are left.
  deleted_at timestamptz,
  -- The numbers that the plan had when the tenant bought it. NULL: they are `limits`, of which none is overridden.
  sold_limits jsonb,
  -- Branding, integrations, the spend cap and alerts, as `Settings` in src/core/settings.ts describes them.
  settings jsonb NOT NULL DEFAULT '{}',
  search text GENERATED ALWAYS AS (lower(id || ' ' || name || ' ' || coalesce(email, ''))) STORED
);
-- Finds a part of a name, an address or an id without reading every tenant.
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE INDEX tenants_by_search ON tenants USING gin (search gin_trgm_ops);
CREATE INDEX tenants_by_state ON tenants (state, id);
CREATE INDEX tenants_by_plan ON tenants (plan, id);
CREATE INDEX tenants_undelivered ON tenants (id) WHERE delivered_version < version;
CREATE INDEX tenants_unfinished ON tenants (id) WHERE state = 'provisioning' OR monitored_at IS NULL;

-- Requests with an Idempotency-Key, kept for a day. The seed and created_at make a repeated run find what the first one made.
CREATE TABLE idempotent_requests (
  -- Method, path, and who sent it: another sender with the same key makes a request of its own.
  scope text NOT NULL,
  key text NOT NULL,
  -- SHA-256 of the body.
  fingerprint text NOT NULL,
  seed text NOT NULL,
  -- The request that holds the key until locked_until.
  token text NOT NULL,
  locked_until timestamptz NOT NULL,
  runs integer NOT NULL DEFAULT 1,
  -- Status and body, encrypted: they may hold an API key. NULL while there is none.
  answer text,
  created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  PRIMARY KEY (scope, key)
);
CREATE INDEX idempotent_requests_by_age ON idempotent_requests (created_at);

CREATE TABLE api_keys (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  name text NOT NULL,
  -- SHA-256 of the whole key, in hex. The key itself is shown once and kept nowhere.
  hash text NOT NULL UNIQUE,
  -- Id of the root key that its MAC needs. Without that root key in CREDENTIAL_KEY the key does not work.
  root_key text NOT NULL,
  scopes text[] NOT NULL,
  -- The only tools that it may call. NULL: every tool of the tenant.
  tools text[],
  -- Units that its line may use in a calendar month. NULL: what the tenant has.
  units_per_month bigint CHECK (units_per_month > 0),
  -- The first key of its line. A rotated key and its successor share their units of the month.
  line_id text NOT NULL,
  -- The key that it was rotated from.
  replaces text REFERENCES api_keys (id),
  -- Who made it, as in audit rows. A member's keys end with the member.
  created_by_kind text NOT NULL,
  created_by_id text,
  created_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  expires_at timestamptz,
  -- When a key that was rotated ends, unless it expires earlier.
  overlap_until timestamptz,
  revoked_at timestamptz
);
CREATE INDEX api_keys_by_tenant ON api_keys (tenant_id, created_at, id);
-- A key has one successor, unless that was revoked.
CREATE UNIQUE INDEX api_keys_one_successor ON api_keys (replaces) WHERE revoked_at IS NULL;

-- Links an organisation of an issuer to a tenant. An issuer speaks only for the organisations linked here.
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
  reason text,
  -- An outside system refused the request for good. No attempt follows until the operator asks for one.
  refused boolean NOT NULL DEFAULT false,
  PRIMARY KEY (tenant_id, attempt)
);

-- `error` is for the buyer. `reason` is for the operator: what the log says, without the text of a database or of Stripe.
CREATE TABLE provisioning_steps (
  tenant_id text NOT NULL REFERENCES tenants (id),
  step text NOT NULL,
  attempt integer NOT NULL,
  started_at timestamptz NOT NULL,
  finished_at timestamptz,
  error text,
  reason text,
  PRIMARY KEY (tenant_id, step)
);

-- How often a tenant's credential was used on a route of another tenant, by UTC day. Each attempt was refused.
CREATE TABLE cross_tenant_attempts (
  tenant_id text NOT NULL REFERENCES tenants (id),
  day date NOT NULL,
  attempts bigint NOT NULL DEFAULT 1,
  last_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, day)
);

GRANT UPDATE (name, email) ON checkouts TO tollgate_service;
GRANT SELECT, INSERT ON checkouts, tenants, api_keys, tenant_links, provisioning_attempts, provisioning_steps,
                        cross_tenant_attempts TO tollgate_service;
GRANT UPDATE (attempts, last_at) ON cross_tenant_attempts TO tollgate_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotent_requests TO tollgate_service;
GRANT DELETE ON tenant_links, cross_tenant_attempts TO tollgate_service;
GRANT UPDATE ON tenants, provisioning_attempts, provisioning_steps TO tollgate_service;
GRANT UPDATE (name, tools, units_per_month, expires_at, overlap_until, revoked_at) ON api_keys TO tollgate_service;
