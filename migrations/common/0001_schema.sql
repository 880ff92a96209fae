-- The schema `tollgate` holds Tollgate's own tables and functions. This folder applies to every database with tenants' rows:
-- to those with shared tables and to those with one schema per tenant. A new object has no rights until they are granted.

REVOKE ALL ON SCHEMA public FROM PUBLIC;
DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END $$;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;

CREATE SCHEMA tollgate;

-- Drops what a login of tools owns in this database: large objects and default privileges, which a host may let every role
-- make. A role that owns something cannot be dropped. Only a role with the login's rights may do this, so the owner of the
-- database takes them for a moment; as the creator of the login it may.
CREATE FUNCTION tollgate.drop_owned(login name) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF EXISTS (SELECT FROM pg_shdepend d JOIN pg_roles r ON r.oid = d.refobjid
             WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND r.rolname = login
               AND d.dbid IN (0, (SELECT b.oid FROM pg_database b WHERE b.datname = current_database())))
  THEN
    EXECUTE format('GRANT %I TO CURRENT_USER WITH INHERIT TRUE, SET FALSE', login);
    EXECUTE format('DROP OWNED BY %I', login);
    EXECUTE format('REVOKE %I FROM CURRENT_USER', login);
  END IF;
END $$;
REVOKE ALL ON FUNCTION tollgate.drop_owned(name) FROM PUBLIC;
