-- The tables of the tools, in a tenant's own schema. They have the columns and keys of those that tenants share
-- (migrations/shared/0003_tables.sql), so that a tool's statement and a moved row mean the same in both.

CREATE TABLE products (
  tenant_id text NOT NULL,
  id text NOT NULL,
  name text NOT NULL,
  description text NOT NULL DEFAULT '',
  category text NOT NULL DEFAULT '',
  price_cents integer NOT NULL CHECK (price_cents >= 0),
  stock integer NOT NULL DEFAULT 0 CHECK (stock >= 0),
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, id)
);
SELECT tollgate.isolate('products');
CREATE INDEX products_by_name ON products (tenant_id, name, id);

CREATE TABLE settings (
  tenant_id text NOT NULL,
  key text NOT NULL,
  value jsonb NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
);
SELECT tollgate.isolate('settings');
