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
