-- Takes built-in functions away from tenants' statements. They keep state that tenants would share (large objects, advisory
-- locks, notifications, the log), reach other connections (the text of their statements, their termination) or waste time.
-- None of them reaches another tenant's rows. They belong to the host's superuser: when the database's owner runs this file
-- and the host grants no right to revoke, nothing changes, and src/tenant-db/isolation.ts reports what stays open. On a local
-- cluster the superuser runs this file a second time.

SET LOCAL client_min_messages = error; -- a REVOKE without the right to it warns once per function

DO $$
DECLARE
  owner CONSTANT text := (SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database());
  target regprocedure;
BEGIN
  FOR target IN
    SELECT oid FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace
      AND proname ~ '^(lo_.*|loread|lowrite|pg_(try_)?advisory_.*|pg_notify|pg_sleep.*|pg_logical_emit_message|pg_export_snapshot|pg_(cancel|terminate)_backend|pg_stat_get_activity|pg_stat_get_backend_.*)$'
      AND has_function_privilege('public', oid, 'EXECUTE')
  LOOP
    -- The owner keeps what it migrates and maintains with. On a host that does not allow it, neither statement does anything.
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', target, owner);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', target);
  END LOOP;
  EXECUTE format('GRANT USAGE ON LANGUAGE plpgsql TO %I', owner);
  REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; -- DO blocks
END $$;
