-- What the operator's people do: act as a tenant's admin, and use the operator token in an emergency. And the alerts that
-- tenants get about their usage.

-- An operator who acts, or acted, as a tenant's admin. The credential itself is stored nowhere: it has a MAC.
CREATE TABLE impersonations (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  operator_id text NOT NULL,
  operator_name text NOT NULL,
  -- How the operator signed in: token, oidc or access.
  through text NOT NULL,
  reason text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  -- When an operator ended it before its time.
  ended_at timestamptz
);
CREATE INDEX impersonations_by_end ON impersonations (expires_at);

-- How often the operator token was used, by hour, where it is for emergencies only.
CREATE TABLE operator_token_uses (
  hour timestamptz PRIMARY KEY,
  uses bigint NOT NULL DEFAULT 1,
  last_at timestamptz NOT NULL DEFAULT now()
);

-- What a tenant is alerted of: one row for each event and way to send it.
CREATE TABLE alerts (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- The name of the event in its webhook.
  event text NOT NULL,
  -- What it is about: a threshold of a period, an unpaid invoice, a key, a member. It is raised once.
  subject text NOT NULL,
  channel text NOT NULL CHECK (channel IN ('webhook', 'mail')),
  -- Ids and numbers.
  data jsonb NOT NULL,
  raised_at timestamptz NOT NULL DEFAULT date_trunc('milliseconds', now()),
  attempts integer NOT NULL DEFAULT 0,
  -- The next attempt. NULL: none follows.
  next_at timestamptz DEFAULT now(),
  sent_at timestamptz,
  -- Why the last attempt failed, in words of Tollgate's own.
  error text,
  UNIQUE (tenant_id, event, subject, channel)
);
CREATE INDEX alerts_due ON alerts (next_at) WHERE sent_at IS NULL;
CREATE INDEX alerts_by_tenant ON alerts (tenant_id, id);

-- The secret that signs a tenant's webhooks, encrypted. After a rotation the former one signs, too, until former_until.
CREATE TABLE webhook_secrets (
  tenant_id text PRIMARY KEY REFERENCES tenants (id),
  secret text NOT NULL,
  former_secret text,
  former_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);

GRANT SELECT, INSERT ON webhook_secrets TO tollgate_service;
GRANT UPDATE (secret, former_secret, former_until, created_at) ON webhook_secrets TO tollgate_service;
GRANT SELECT, INSERT, DELETE ON impersonations, operator_token_uses, alerts TO tollgate_service;
GRANT UPDATE (ended_at) ON impersonations TO tollgate_service;
GRANT UPDATE (uses, last_at) ON operator_token_uses TO tollgate_service;
GRANT UPDATE (attempts, next_at, sent_at, error) ON alerts TO tollgate_service;
