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

-- The alerts about a tenant's usage that are due or sent: one for each threshold, month and way to send it.
CREATE TABLE usage_alerts (
  tenant_id text NOT NULL REFERENCES tenants (id),
  month date NOT NULL,
  threshold_percent integer NOT NULL,
  channel text NOT NULL CHECK (channel IN ('webhook', 'mail')),
  due_at timestamptz NOT NULL DEFAULT now(),
  attempts integer NOT NULL DEFAULT 0,
  sent_at timestamptz,
  PRIMARY KEY (tenant_id, month, threshold_percent, channel)
);
CREATE INDEX usage_alerts_unsent ON usage_alerts (due_at) WHERE sent_at IS NULL;

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
GRANT SELECT, INSERT, DELETE ON impersonations, operator_token_uses, usage_alerts TO tollgate_service;
GRANT UPDATE (ended_at) ON impersonations TO tollgate_service;
GRANT UPDATE (uses, last_at) ON operator_token_uses TO tollgate_service;
GRANT UPDATE (attempts, sent_at) ON usage_alerts TO tollgate_service;
