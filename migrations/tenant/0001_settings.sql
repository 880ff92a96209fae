-- Product tables that every tenant has. The same file applies to shared databases and to each tenant's own schema.

CREATE TABLE settings (
  tenant_id text NOT NULL,
  key text NOT NULL,
  value jsonb NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
);
SELECT tollgate.isolate('settings');
