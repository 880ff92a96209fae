-- The logins of tools on shared tables. They may connect and use the schema `public`, and cannot create anything. Roles
-- belong to the whole cluster, and several shards may live in one, so a role is created only when it is missing.
-- `npm run migrate` sets the passwords. Two logins alternate: one serves while the other's password changes.

DO $$
DECLARE
  login text;
BEGIN
  -- Another shard's migration may create the role at the same moment.
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

  EXECUTE format('GRANT CONNECT ON DATABASE %I TO tollgate_app', current_database());
END $$;

GRANT USAGE ON SCHEMA public, tollgate TO tollgate_app;
