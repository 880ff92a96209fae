-- The analytics login in a database with shared tables. It has a policy of its own on each table, beside the tenants'
-- policies.

DO $$
BEGIN
  EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog, public, pg_temp', tollgate.analytics_role());
  EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', tollgate.analytics_role());
  -- The tenants' policies call it for this login too; it returns NULL then.
  EXECUTE format('GRANT EXECUTE ON FUNCTION tollgate.current_tenant() TO %I', tollgate.analytics_role());
  -- The isolation proof accepts the policy of this role only.
  EXECUTE format('GRANT EXECUTE ON FUNCTION tollgate.analytics_role() TO %I', tollgate.app_role());
END $$;

-- Lets the analytics login read a table. A query names the tenants that it must not count in `tollgate.left_out`, separated
-- by commas: tenants that move, whose rows here are a copy. This is no protection: the login may set it.
CREATE FUNCTION tollgate.show_to_analytics(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format(
    'CREATE POLICY analytics_reads ON %s FOR SELECT TO %I
       USING (tenant_id <> ALL ((SELECT string_to_array(coalesce(current_setting(''tollgate.left_out'', true), ''''), '',''))::text[]))',
    target, tollgate.analytics_role()
  );
  EXECUTE format('GRANT SELECT ON TABLE %s TO %I', target, tollgate.analytics_role());
END $$;

REVOKE ALL ON FUNCTION tollgate.show_to_analytics(regclass) FROM PUBLIC;
