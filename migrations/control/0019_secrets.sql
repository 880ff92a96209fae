-- The secrets that tenants have set for their tools. src/core/tenant/tool-secrets.ts has the rules.

CREATE TABLE tenant_secrets (
  tenant_id text NOT NULL REFERENCES tenants (id),
  name text NOT NULL,
  -- Encrypted under ENCRYPTION_KEYS, for this tenant and name alone.
  value text NOT NULL,
  set_at timestamptz NOT NULL,
  set_by_kind text NOT NULL,
  set_by_id text,
  PRIMARY KEY (tenant_id, name)
);

GRANT SELECT, INSERT, DELETE ON tenant_secrets TO tollgate_service;
GRANT UPDATE (value, set_at, set_by_kind, set_by_id) ON tenant_secrets TO tollgate_service;
