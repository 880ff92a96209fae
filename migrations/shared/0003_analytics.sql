-- The analytics login, for the operator's questions about all tenants. It reads every tenant's rows and does nothing else.
-- The logins of tools are not members of it. It has a policy of its own on each table, beside the tenants' policies.

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
  EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog, public, pg_temp', login);
  EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', login, '30s');
  EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', login, '5s');
  EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', login, '10s');
  EXECUTE format('ALTER ROLE %I SET transaction_timeout = %L', login, '40s');

  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
  EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', login);
  -- The tenants' policies call it for this login too; it returns NULL then.
  EXECUTE format('GRANT EXECUTE ON FUNCTION tollgate.current_tenant() TO %I', login);
  -- A constant, because a copy of the database has another name and the same logins.
  EXECUTE format('CREATE FUNCTION tollgate.analytics_role() RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN %L::name', login);
END $$;

-- Gives the analytics login its password: plain text, because Neon accepts no other.
CREATE FUNCTION tollgate.set_analytics_password(new_password text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('ALTER ROLE %I PASSWORD %L', tollgate.analytics_role(), new_password);
END $$;

-- Lets the analytics login read a table. A query names the tenants that it must not count in `tollgate.left_out`, separated
-- by commas: the canaries, and tenants that move, whose rows here are a copy. That is a convenience, not a protection.
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

REVOKE ALL ON FUNCTION tollgate.analytics_role(), tollgate.set_analytics_password(text),
  tollgate.show_to_analytics(regclass) FROM PUBLIC;
-- The isolation proof accepts the policy of this role only.
GRANT EXECUTE ON FUNCTION tollgate.analytics_role() TO tollgate_app;
