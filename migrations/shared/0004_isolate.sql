-- Makes a table one that tenants share. `SELECT tollgate.isolate('name')` belongs in the file that creates the table, and is
-- the only place where the tenants' policies are written.

-- Isolates tenants' rows: row security that is forced on the owner too, one policy for every verb, and rights without
-- TRUNCATE, which row security does not check. `tenant_id` defaults to the current tenant. Changes are logged, and the
-- analytics login may read. Refuses a table whose keys do not start with `tenant_id`: a violated key reveals that a row exists.
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
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO %I', target, tollgate.app_role());
  PERFORM tollgate.track(target);
  PERFORM tollgate.show_to_analytics(target);
END $$;
REVOKE ALL ON FUNCTION tollgate.isolate(regclass) FROM PUBLIC;
