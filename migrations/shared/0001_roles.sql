-- Who may connect to a shard, and that nobody may create anything in it. Roles belong to the whole cluster and several
-- shards may live in one, so they are made only where they are missing; their passwords are set by `npm run migrate`.
-- Two logins alternate, so that a password can be changed while the other login serves.

DO $$
DECLARE
  login text;
BEGIN
  -- Another shard's migration may run at the same moment: whoever comes second finds the role made.
  BEGIN
    CREATE ROLE tollgate_app NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
  EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
  END;
  FOREACH login IN ARRAY ARRAY['tollgate_app_a', 'tollgate_app_b'] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', login);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
    -- The group's rights without its name: a login cannot become the group and so cannot own through it.
    EXECUTE format('GRANT tollgate_app TO %I WITH INHERIT TRUE, SET FALSE, ADMIN FALSE', login);
    -- Backstops for a connection that no batch has opened; `tollgate.enter` sets its own for every batch.
    EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog, public, pg_temp', login);
    EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', login, '25s');
    EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', login, '5s');
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', login, '10s');
    EXECUTE format('ALTER ROLE %I SET transaction_timeout = %L', login, '60s');
  END LOOP;

  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO tollgate_app', current_database());
END $$;

REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO tollgate_app;

-- What later migrations create is nobody's until it is granted.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;
