-- Shared tables have their changes noted, and those to come have too.
SELECT tollgate.track('products'), tollgate.track('settings');

CREATE OR REPLACE FUNCTION tollgate.isolate(target regclass) RETURNS void
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
  PERFORM tollgate.track(target);
END $$;
REVOKE ALL ON FUNCTION tollgate.isolate(regclass) FROM PUBLIC;
