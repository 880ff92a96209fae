-- The tables that tenants share. A table becomes one by `SELECT tollgate.isolate('name')` in the migration that creates
-- it, which is the only place where policies are written.

-- Puts a table behind the wall: row security that its owner cannot step over either, one policy for every verb, rights
-- without TRUNCATE (which row security does not see), and `tenant_id` filled in by itself. Refuses a table whose keys
-- do not start with `tenant_id`, because a violated key tells that a row exists.
CREATE FUNCTION tollgate.isolate(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant_column CONSTANT smallint := (
    SELECT attnum FROM pg_attribute
    WHERE attrelid = target AND attname = 'tenant_id' AND atttypid = 'text'::regtype AND attnotnull
  );
  mine CONSTANT text := 'tenant_id = (SELECT tollgate.current_tenant())';
BEGIN
  IF tenant_column IS NULL THEN
    RAISE EXCEPTION 'table % needs a column tenant_id text NOT NULL', target;
  END IF;
  IF EXISTS (SELECT FROM pg_index WHERE indrelid = target AND (indisunique OR indisexclusion) AND indkey[0] <> tenant_column)
    OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = target AND contype = 'f' AND conkey[1] <> tenant_column)
  THEN
    RAISE EXCEPTION 'every unique and foreign key of table % must start with tenant_id', target;
  END IF;
  EXECUTE format('ALTER TABLE %s ALTER COLUMN tenant_id SET DEFAULT tollgate.current_tenant()', target);
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', target);
  EXECUTE format('CREATE POLICY tenant_reads ON %s FOR SELECT USING (%s)', target, mine);
  EXECUTE format('CREATE POLICY tenant_inserts ON %s FOR INSERT WITH CHECK (%s)', target, mine);
  EXECUTE format('CREATE POLICY tenant_updates ON %s FOR UPDATE USING (%s) WITH CHECK (%s)', target, mine, mine);
  EXECUTE format('CREATE POLICY tenant_deletes ON %s FOR DELETE USING (%s)', target, mine);
  EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC', target);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO tollgate_app', target);
END $$;
REVOKE ALL ON FUNCTION tollgate.isolate(regclass) FROM PUBLIC;

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
-- Search reads the tenant's own rows in the order of its answer and stops when the page is full, in a table of any
-- number of tenants. An index on the searched text itself would not be used: ILIKE is not leakproof, so row security
-- lets it see a row only after `tenant_id` was compared.
CREATE INDEX products_by_name ON products (tenant_id, name, id);

CREATE TABLE settings (
  tenant_id text NOT NULL,
  key text NOT NULL,
  value jsonb NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, key)
);
SELECT tollgate.isolate('settings');
