-- The analytics login, for the operator's questions about all tenants. It reads tenants' tables and does nothing else. No
-- login of a tenant or of tools is a member of it. `tollgate.show_to_analytics`, which migrations/shared and
-- migrations/branch define, lets it read a table.

-- Rights on the database change one at a time.
SELECT pg_advisory_xact_lock(hashtext('tollgate.tenants'));
DO $$
DECLARE
  login name;
BEGIN
  -- Roles belong to the whole cluster. Each database has an analytics login of its own, so that one password opens one
  -- database. When the plain name is taken, the role's name ends with the database's name.
  FOREACH login IN ARRAY ARRAY['tollgate_analytics', 'tollgate_analytics_' || current_database()]::name[] LOOP
    BEGIN
      EXECUTE format(
        'CREATE ROLE %I LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 10', login
      );
      EXIT;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
  END LOOP;
  -- Backstops for a connection that no batch has opened.
  EXECUTE format('ALTER ROLE %I SET default_transaction_read_only = on', login);
  EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog, pg_temp', login);
  EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', login, '30s');
  EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', login, '5s');
  EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', login, '10s');
  EXECUTE format('ALTER ROLE %I SET transaction_timeout = %L', login, '40s');

  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
  -- A constant, because a copy of the database has another name and the same logins.
  EXECUTE format('CREATE FUNCTION tollgate.analytics_role() RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN %L::name', login);
END $$;

-- Sets the password of the analytics login. It is plain text, because Neon accepts nothing else.
CREATE FUNCTION tollgate.set_analytics_password(new_password text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('ALTER ROLE %I PASSWORD %L', tollgate.analytics_role(), new_password);
END $$;

REVOKE ALL ON FUNCTION tollgate.analytics_role(), tollgate.set_analytics_password(text) FROM PUBLIC;
