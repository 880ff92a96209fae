-- Prepares a database in which tenants have a schema and a login role of their own. The wall is the role: it may use its
-- schema and what is granted in it, and nothing else. Roles and schemas have names that tell nothing about their tenants,
-- because the catalogue can be read by everybody.

REVOKE ALL ON SCHEMA public FROM PUBLIC;
DO $$
BEGIN
  EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', current_database());
END $$;
-- What later migrations create is nobody's until it is granted.
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE USAGE ON TYPES FROM PUBLIC;

CREATE SCHEMA tollgate;
GRANT USAGE ON SCHEMA tollgate TO PUBLIC; -- only tenants' roles and the owner can connect

-- Whose role is whose. Nobody but the owner reads it.
CREATE TABLE tollgate.tenants (
  role name PRIMARY KEY,
  tenant_id text NOT NULL
);

-- The tenant whose login this is; NULL for the owner. It has the name that shared tables know it by, so that the same
-- statements work in every tier.
CREATE FUNCTION tollgate.current_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
RETURN (SELECT t.tenant_id FROM tollgate.tenants t WHERE t.role = session_user);

-- Opens a batch: what an earlier statement left on this pooled connection is undone, and unqualified names mean the
-- tenant's own tables until the end of the transaction. It protects nobody: naming another schema is refused by rights.
CREATE FUNCTION tollgate.enter(schema text, statement_timeout_ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
  RESET ALL;
  PERFORM pg_catalog.set_config('role', 'none', true),
    pg_catalog.set_config('search_path', pg_catalog.format('pg_catalog, %I, pg_temp', schema), true),
    pg_catalog.set_config('statement_timeout', statement_timeout_ms::pg_catalog.text, true),
    pg_catalog.set_config('lock_timeout', statement_timeout_ms::pg_catalog.text, true);
END $$;
GRANT EXECUTE ON FUNCTION tollgate.current_tenant(), tollgate.enter(text, integer) TO PUBLIC;

-- Gives a tenant a role and a schema of this name. Repeating it sets another password and changes nothing else.
CREATE FUNCTION tollgate.create_tenant(role_name text, of_tenant text, new_password text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role_name) THEN
    -- 50 connections are more than any plan's sessions and calls in flight need, and a bound for a tenant that tries.
    EXECUTE format(
      'CREATE ROLE %I LOGIN NOINHERIT NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS CONNECTION LIMIT 50',
      role_name
    );
    -- Backstops for a connection that no batch has opened; `tollgate.enter` sets its own for every batch.
    EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', role_name, '25s');
    EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', role_name, '5s');
    EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', role_name, '10s');
    EXECUTE format('ALTER ROLE %I SET transaction_timeout = %L', role_name, '60s');
  END IF;
  -- Plain text, because Neon accepts no other: it keeps a verifier of its own.
  EXECUTE format('ALTER ROLE %I PASSWORD %L', role_name, new_password);
  -- One at a time: a database's rights are one row, and two changes of it at once are an error.
  PERFORM pg_advisory_xact_lock(hashtext('tollgate.tenants'));
  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role_name);
  EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I', role_name);
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', role_name, role_name);
  INSERT INTO tollgate.tenants AS t (role, tenant_id) VALUES (role_name, of_tenant)
  ON CONFLICT (role) DO UPDATE SET tenant_id = excluded.tenant_id WHERE t.tenant_id = excluded.tenant_id;
  IF NOT FOUND THEN
    RAISE EXCEPTION 'role % is another tenant''s', role_name USING ERRCODE = 'unique_violation';
  END IF;
END $$;

-- Removes a tenant's role and schema with all that is in it. Repeating it does nothing.
CREATE FUNCTION tollgate.drop_tenant(role_name text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', role_name);
  DELETE FROM tollgate.tenants t WHERE t.role = role_name;
  IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role_name) THEN
    PERFORM pg_advisory_xact_lock(hashtext('tollgate.tenants'));
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM %I', current_database(), role_name);
    EXECUTE format('DROP ROLE %I', role_name);
  END IF;
END $$;

-- Makes a table of a tenant's schema the tenant's: rights on its rows, `tenant_id` filled in by itself, and its changes
-- noted. The rule that it names the tenant keeps a copy of the rows fit for shared tables.
CREATE FUNCTION tollgate.isolate(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  owner CONSTANT name := (SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = target);
BEGIN
  EXECUTE format(
    'ALTER TABLE %s ALTER COLUMN tenant_id SET DEFAULT tollgate.current_tenant(),
       ADD CONSTRAINT tenant_id_is_mine CHECK (tenant_id = tollgate.current_tenant())', target
  );
  EXECUTE format('REVOKE ALL ON TABLE %s FROM PUBLIC', target);
  EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO %I', target, owner);
  PERFORM tollgate.track(target);
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA tollgate FROM PUBLIC;
REVOKE ALL ON FUNCTION tollgate.create_tenant(text, text, text), tollgate.drop_tenant(text), tollgate.isolate(regclass)
  FROM PUBLIC;
