-- Prepares a database in which each tenant has a schema and a login role of its own. The role is the wall: it may use its
-- schema and the objects granted to it there, and nothing else. The names of roles and schemas reveal nothing about their
-- tenants, because every login can read the catalogue.

GRANT USAGE ON SCHEMA tollgate TO PUBLIC; -- only tenants' roles and the owner can connect

-- Each role's tenant. Only the owner reads it.
CREATE TABLE tollgate.tenants (
  role name PRIMARY KEY,
  tenant_id text NOT NULL,
  -- The schema's objects as its last migration left them; NULL before the first one.
  structure jsonb
);

-- The tenant of this login; NULL for the owner. The function has the same name in databases with shared tables, so that the
-- same statements work in every tier.
CREATE FUNCTION tollgate.current_tenant() RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
RETURN (SELECT t.tenant_id FROM tollgate.tenants t WHERE t.role = session_user);

-- Opens a batch: resets what an earlier statement left on this pooled connection. Until the end of the transaction,
-- unqualified names mean the tenant's tables. This is no protection: the role's rights refuse other schemas.
CREATE FUNCTION tollgate.enter(schema text, statement_timeout_ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
  -- First, because a limit on transactions that is only replaced keeps the running timer: it would end this batch.
  PERFORM pg_catalog.set_config('transaction_timeout', '0', true);
  RESET ALL;
  PERFORM pg_catalog.set_config('role', 'none', true),
    pg_catalog.set_config('search_path', pg_catalog.format('pg_catalog, %I, pg_temp', schema), true),
    pg_catalog.set_config('statement_timeout', statement_timeout_ms::pg_catalog.text, true),
    pg_catalog.set_config('lock_timeout', statement_timeout_ms::pg_catalog.text, true);
END $$;
GRANT EXECUTE ON FUNCTION tollgate.current_tenant(), tollgate.enter(text, integer) TO PUBLIC;

-- Gives a tenant a role and a schema of this name. Repeating it sets the password and changes nothing else.
CREATE FUNCTION tollgate.create_tenant(role_name text, of_tenant text, new_password text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role_name) THEN
    -- 50 connections are more than the sessions and concurrent calls of any plan, and bound a hostile tenant.
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
  -- Plain text, because Neon accepts nothing else. The server stores a verifier.
  EXECUTE format('ALTER ROLE %I PASSWORD %L', role_name, new_password);
  -- Serialised: a database's rights are one row of the catalogue, and concurrent changes of a row fail.
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

-- Removes a tenant's role and its schema with all objects. Can be repeated. A role that owns something in another database of
-- the cluster cannot be dropped here. It then stays without a password and may not log in, so that the removal ends; its name
-- reveals nothing. Dropping it again after those objects are gone succeeds.
CREATE FUNCTION tollgate.drop_tenant(role_name text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('DROP SCHEMA IF EXISTS %I CASCADE', role_name);
  DELETE FROM tollgate.tenants t WHERE t.role = role_name;
  IF EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role_name) THEN
    PERFORM pg_advisory_xact_lock(hashtext('tollgate.tenants'));
    PERFORM tollgate.drop_owned(role_name);
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM %I', current_database(), role_name);
    BEGIN
      EXECUTE format('DROP ROLE %I', role_name);
    EXCEPTION WHEN dependent_objects_still_exist THEN
      EXECUTE format('ALTER ROLE %I NOLOGIN PASSWORD NULL', role_name);
    END;
  END IF;
END $$;

-- Undoes the default privileges that tenants' roles have set, and returns these roles. Every role may set its own. They are
-- objects of the role, so that the isolation proof refuses it, and its tenant with it. An entry is gone once it has the rights
-- of any new object: all for the owner, those of PostgreSQL for PUBLIC, and nothing besides.
CREATE FUNCTION tollgate.reset_default_privileges() RETURNS SETOF name
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  entry record;
  command text;
  holder oid;
BEGIN
  FOR entry IN
    SELECT t.role, d.defaclacl AS rights, n.nspname AS schema, k.kind, k.of_public
    FROM pg_default_acl d JOIN pg_roles r ON r.oid = d.defaclrole JOIN tollgate.tenants t ON t.role = r.rolname
      LEFT JOIN pg_namespace n ON n.oid = d.defaclnamespace
      JOIN (VALUES ('r', 'TABLES', NULL), ('S', 'SEQUENCES', NULL), ('f', 'FUNCTIONS', 'EXECUTE'), ('T', 'TYPES', 'USAGE'),
                   ('n', 'SCHEMAS', NULL), ('L', 'LARGE OBJECTS', NULL)) AS k (code, kind, of_public) ON k.code::"char" = d.defaclobjtype
  LOOP
    PERFORM pg_advisory_xact_lock(hashtext('tollgate.tenants'));
    -- Only a role with the login's rights may do this, as in `tollgate.drop_owned`.
    EXECUTE format('GRANT %I TO CURRENT_USER WITH INHERIT TRUE, SET FALSE', entry.role);
    command := format('ALTER DEFAULT PRIVILEGES FOR ROLE %I', entry.role) || coalesce(' IN SCHEMA ' || quote_ident(entry.schema), '');
    FOR holder IN SELECT DISTINCT a.grantee FROM aclexplode(entry.rights) a LOOP
      EXECUTE command || format(' REVOKE ALL ON %s FROM ', entry.kind) ||
        CASE holder WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(holder)) END;
    END LOOP;
    IF entry.schema IS NULL THEN -- an entry for one schema only adds rights
      EXECUTE command || format(' GRANT ALL ON %s TO %I', entry.kind, entry.role);
      IF entry.of_public IS NOT NULL THEN
        EXECUTE command || format(' GRANT %s ON %s TO PUBLIC', entry.of_public, entry.kind);
      END IF;
    END IF;
    EXECUTE format('REVOKE %I FROM CURRENT_USER', entry.role);
    RETURN NEXT entry.role;
  END LOOP;
END $$;

-- Gives the tenant a table of its schema: rights on the rows, and `tenant_id` defaults to the tenant. Changes are logged, and
-- the analytics login may read. The check on `tenant_id` keeps the rows fit for a move to shared tables.
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
  PERFORM tollgate.show_to_analytics(target);
END $$;

REVOKE ALL ON TABLE tollgate.tenants FROM PUBLIC;
REVOKE ALL ON FUNCTION tollgate.create_tenant(text, text, text), tollgate.drop_tenant(text), tollgate.isolate(regclass),
  tollgate.reset_default_privileges() FROM PUBLIC;
