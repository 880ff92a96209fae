-- Built-in functions that a tenant's statement has no business with: they keep state that tenants would share (large
-- objects, advisory locks, notifications, the log), reach other connections (their statements' text, their end) or only
-- burn time. None of them reaches another tenant's rows. They belong to the host's superuser: run by the database's
-- owner this changes nothing where the host has kept the right to itself, and src/tenant-db/isolation.ts says what has
-- stayed open. The local default runs this file once more as the superuser.

SET LOCAL client_min_messages = error; -- a REVOKE without the right to it is a warning, one for each function

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
    -- The owner keeps what it migrates and maintains with. On a host that refuses, neither statement does anything.
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', target, owner);
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', target);
  END LOOP;
  EXECUTE format('GRANT USAGE ON LANGUAGE plpgsql TO %I', owner);
  REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC; -- DO blocks
END $$;
