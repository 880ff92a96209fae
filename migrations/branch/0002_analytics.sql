-- Lets the analytics login read a table of a tenant's schema.
CREATE FUNCTION tollgate.show_to_analytics(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', (SELECT c.relnamespace::regnamespace FROM pg_class c WHERE c.oid = target),
    tollgate.analytics_role());
  EXECUTE format('GRANT SELECT ON TABLE %s TO %I', target, tollgate.analytics_role());
END $$;

REVOKE ALL ON FUNCTION tollgate.show_to_analytics(regclass) FROM PUBLIC;
