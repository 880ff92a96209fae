-- The logins of tools on shared tables. They may connect and use the schema `public`, and cannot create anything. Roles
-- belong to the whole cluster, and several shards may live in one. Shards of one owner share the roles; another owner cannot
-- grant them, so its roles' names end with the database's name. Tollgate or `npm run migrate` sets the passwords. Two logins
-- alternate: one serves while the other's password changes.

-- Undoes what statements of tenants have changed of their login. Every role may change its own settings, password and default
-- privileges, and where the host allows it, own large objects. All tenants of the database share the login, so one tenant's
-- change would stop or disturb the others. Changes nothing that is as it should be. `new_password`: NULL keeps the password.
CREATE FUNCTION tollgate.restore_login(login name, new_password text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- Backstops for a connection that no batch has opened; `tollgate.enter` sets its own for every batch.
  timeouts CONSTANT jsonb := '{"statement_timeout": "25s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "10s",
    "transaction_timeout": "60s"}';
  role CONSTANT oid := (SELECT r.oid FROM pg_roles r WHERE r.rolname = login);
  expected text[];
  setting record;
BEGIN
  SELECT array_agg('0 ' || s ORDER BY s) INTO expected
  FROM (SELECT t.key || '=' || t.value FROM jsonb_each_text(timeouts) t
        UNION ALL SELECT 'search_path=pg_catalog, public, pg_temp') AS given (s);
  IF expected IS DISTINCT FROM (SELECT array_agg(d.setdatabase || ' ' || s ORDER BY d.setdatabase, s)
                                FROM pg_db_role_setting d, unnest(d.setconfig) s WHERE d.setrole = role) THEN
    FOR setting IN SELECT b.datname FROM pg_db_role_setting d JOIN pg_database b ON b.oid = d.setdatabase WHERE d.setrole = role LOOP
      EXECUTE format('ALTER ROLE %I IN DATABASE %I RESET ALL', login, setting.datname);
    END LOOP;
    EXECUTE format('ALTER ROLE %I RESET ALL', login);
    EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog, public, pg_temp', login);
    FOR setting IN SELECT * FROM jsonb_each_text(timeouts) LOOP
      EXECUTE format('ALTER ROLE %I SET %I = %L', login, setting.key, setting.value);
    END LOOP;
  END IF;
  IF new_password IS NOT NULL THEN
    EXECUTE format('ALTER ROLE %I PASSWORD %L', login, new_password); -- plain text, because Neon accepts nothing else
  END IF;
  PERFORM tollgate.drop_owned(login);
END $$;
REVOKE ALL ON FUNCTION tollgate.restore_login(name, text) FROM PUBLIC;

DO $$
DECLARE
  app_group name;
  login name;
BEGIN
  FOREACH app_group IN ARRAY ARRAY['tollgate_app', 'tollgate_app_' || current_database()]::name[] LOOP
    -- Another shard's migration may create the role at the same moment.
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', app_group);
      EXIT;
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      EXIT WHEN pg_has_role(app_group, 'MEMBER WITH ADMIN OPTION');
    END;
  END LOOP;
  FOREACH login IN ARRAY ARRAY[app_group || '_a', app_group || '_b']::name[] LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', login);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
    END;
    -- The group's rights without its name: a login cannot become the group and so cannot own through it.
    EXECUTE format('GRANT %I TO %I WITH INHERIT TRUE, SET FALSE, ADMIN FALSE', app_group, login);
    PERFORM tollgate.restore_login(login);
  END LOOP;

  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), app_group);
  EXECUTE format('GRANT USAGE ON SCHEMA public, tollgate TO %I', app_group);
  -- The group of the tools' logins. A constant, because a copy of the database has another name and the same logins.
  EXECUTE format('CREATE FUNCTION tollgate.app_role() RETURNS name LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN %L::name', app_group);
  EXECUTE format('GRANT EXECUTE ON FUNCTION tollgate.app_role() TO %I', app_group); -- the isolation proof reads it
END $$;
REVOKE ALL ON FUNCTION tollgate.app_role() FROM PUBLIC;
