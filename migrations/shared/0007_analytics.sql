-- Who answers the operator's questions about all tenants: a login of its own that reads every tenant's rows and does
-- nothing else. The logins of tools are no members of it. A policy of its own lets it through the wall; the tenants' own
-- policies stay as they are. The program of before takes that policy for a hole and serves no tenant of these tables: deploy
-- the new one right after.

DO $$
DECLARE
  login name;
BEGIN
  -- Roles belong to the whole cluster, and each database has an analytics login of its own, whose password opens nothing
  -- else: where the plain name is taken, the database's own name tells them apart.
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
  -- The tenants' own policy asks it, too. Of this login it knows no tenant.
  EXECUTE format('GRANT EXECUTE ON FUNCTION tollgate.current_tenant() TO %I', login);
  -- A copy of the database has another name and the same logins.
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

-- Lets the analytics login read a table. Tenants whose rows here are a copy, because they move, and the canaries are not to
-- be counted: whoever asks names them in `tollgate.left_out`, with commas between them. That is a convenience and no wall.
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

-- What a table becomes by `isolate`: the tenants', as it was, and readable for analytics.
-- allow rename: the next statement makes another one of the old name.
ALTER FUNCTION tollgate.isolate(regclass) RENAME TO keep_apart;
CREATE FUNCTION tollgate.isolate(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM tollgate.keep_apart(target);
  PERFORM tollgate.show_to_analytics(target);
END $$;

REVOKE ALL ON FUNCTION tollgate.analytics_role(), tollgate.set_analytics_password(text),
  tollgate.show_to_analytics(regclass), tollgate.isolate(regclass) FROM PUBLIC;
-- The proof that tenants are apart accepts the policy of this role alone.
GRANT EXECUTE ON FUNCTION tollgate.analytics_role() TO tollgate_app;

SELECT tollgate.show_to_analytics(polrelid) FROM pg_policy WHERE polname = 'tenant_reads';
