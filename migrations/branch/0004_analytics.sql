-- Who answers the operator's questions about all tenants: a login of its own that reads the tables of every tenant's schema
-- and does nothing else. The logins of tenants are no members of it. What a schema's migrations left is described without
-- these rights, which every schema has: a schema of before and one of after are alike.

-- Rights on the database change one at a time.
SELECT pg_advisory_xact_lock(hashtext('tollgate.tenants'));
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
  EXECUTE format('ALTER ROLE %I SET search_path = pg_catalog, pg_temp', login);
  EXECUTE format('ALTER ROLE %I SET statement_timeout = %L', login, '30s');
  EXECUTE format('ALTER ROLE %I SET lock_timeout = %L', login, '5s');
  EXECUTE format('ALTER ROLE %I SET idle_in_transaction_session_timeout = %L', login, '10s');
  EXECUTE format('ALTER ROLE %I SET transaction_timeout = %L', login, '40s');

  EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
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

-- Lets the analytics login read a table of a tenant's schema.
CREATE FUNCTION tollgate.show_to_analytics(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %s TO %I', (SELECT c.relnamespace::regnamespace FROM pg_class c WHERE c.oid = target),
    tollgate.analytics_role());
  EXECUTE format('GRANT SELECT ON TABLE %s TO %I', target, tollgate.analytics_role());
END $$;

-- What a table becomes by `isolate`: the tenant's, as it was, and readable for analytics.
-- allow rename: the next statement makes another one of the old name.
ALTER FUNCTION tollgate.isolate(regclass) RENAME TO make_own;
CREATE FUNCTION tollgate.isolate(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM tollgate.make_own(target);
  PERFORM tollgate.show_to_analytics(target);
END $$;

-- Who may do what: NULL stands for the rights that an object of this kind has from the start. Any right of the analytics
-- login but the one to read is told, too.
CREATE OR REPLACE FUNCTION tollgate.rights(acl aclitem[], kind "char", owner oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT string_agg(g.who || ' ' || g.rights, '; ' ORDER BY g.who)
  FROM (
    SELECT tollgate.role_called(a.grantee) AS who, string_agg(
      lower(a.privilege_type) || CASE WHEN a.is_grantable THEN ' with grant option' ELSE '' END, ', '
      ORDER BY a.privilege_type, a.is_grantable) AS rights
    FROM aclexplode(coalesce(acl, acldefault(kind, owner))) a
    WHERE a.grantee <> to_regrole(quote_ident(tollgate.analytics_role())) OR a.is_grantable
      OR (kind, a.privilege_type) NOT IN (('r', 'SELECT'), ('n', 'USAGE'))
    GROUP BY a.grantee
  ) g
$$;

REVOKE ALL ON FUNCTION tollgate.analytics_role(), tollgate.set_analytics_password(text),
  tollgate.show_to_analytics(regclass), tollgate.isolate(regclass) FROM PUBLIC;

SELECT tollgate.show_to_analytics(conrelid) FROM pg_constraint WHERE conname = 'tenant_id_is_mine';
