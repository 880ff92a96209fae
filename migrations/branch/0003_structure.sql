-- Migrates a tenant's schema, and finds schemas that were changed by hand. A migration stores the schema's structure in the
-- same transaction; later the stored structure is compared with the schema.

-- Names a role by its part in this database, so that the schemas of two tenants or databases have equal descriptions.
CREATE FUNCTION tollgate.role_called(role oid) RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN role = 0 THEN 'everybody' WHEN role = n.nspowner THEN 'the owner' ELSE pg_get_userbyid(role) END
  FROM pg_namespace n WHERE n.nspname = 'tollgate'
$$;

-- Describes who has which rights. A NULL list means the default rights of an object of this kind. Leaves out the analytics
-- login's right to read, which every schema has; any other right of that login is included.
CREATE FUNCTION tollgate.rights(acl aclitem[], kind "char", owner oid) RETURNS text
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

-- Describes every object of a schema, by kind and name. Leaves out settings that may differ for one tenant: storage parameters,
-- statistics, limits of the role. Leaves out the order of columns, because no statement may rely on it. `form` is the version
-- of this function and of the server, which words the definitions: only descriptions of the same form can be compared.
CREATE FUNCTION tollgate.structure(schema text) RETURNS jsonb
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  WITH space AS (SELECT n.* FROM pg_namespace n WHERE n.nspname = schema),
  -- Reads the dependencies, because the catalogues have no index that begins with the schema.
  member AS MATERIALIZED (
    SELECT d.classid, d.objid FROM space s
    JOIN pg_depend d ON d.refclassid = 'pg_namespace'::regclass AND d.refobjid = s.oid
  ),
  relation AS MATERIALIZED (
    SELECT c.* FROM member m JOIN pg_class c ON c.oid = m.objid WHERE m.classid = 'pg_class'::regclass
  ),
  object (name, definition) AS (
    SELECT 'form', '1/' || (current_setting('server_version_num')::integer / 10000)
    UNION ALL
    SELECT 'schema', format('of %s, rights: %s', tollgate.role_called(s.nspowner), tollgate.rights(s.nspacl, 'n', s.nspowner))
    FROM space s
    UNION ALL
    SELECT 'role', concat_ws(', ',
      CASE WHEN r.rolcanlogin THEN 'login' END, CASE WHEN r.rolinherit THEN 'inherit' END,
      CASE WHEN r.rolsuper THEN 'superuser' END, CASE WHEN r.rolcreaterole THEN 'createrole' END,
      CASE WHEN r.rolcreatedb THEN 'createdb' END, CASE WHEN r.rolreplication THEN 'replication' END,
      CASE WHEN r.rolbypassrls THEN 'bypassrls' END,
      (SELECT 'member of ' || string_agg(tollgate.role_called(m.roleid), ', ' ORDER BY m.roleid)
       FROM pg_auth_members m WHERE m.member = r.oid))
    FROM pg_roles r WHERE r.rolname = schema
    UNION ALL
    SELECT format('%s %I', CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view' WHEN 'S' THEN 'sequence'
        WHEN 'c' THEN 'type' WHEN 'f' THEN 'foreign table' ELSE 'table' END, c.relname),
      concat_ws(', ', 'of ' || tollgate.role_called(c.relowner),
        'rights: ' || tollgate.rights(c.relacl, CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner),
        CASE c.relpersistence WHEN 'u' THEN 'unlogged' END,
        CASE WHEN c.relrowsecurity THEN 'row security' END, CASE WHEN c.relforcerowsecurity THEN 'forced on its owner' END,
        CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
        CASE WHEN c.relkind = 'p' THEN 'partitioned by ' || pg_get_partkeydef(c.oid) END,
        CASE WHEN c.relispartition THEN 'partition ' || pg_get_expr(c.relpartbound, c.oid) END,
        (SELECT 'inherits ' || string_agg(i.inhparent::regclass::text, ', ' ORDER BY i.inhseqno)
         FROM pg_inherits i WHERE i.inhrelid = c.oid),
        (SELECT format('%s from %s by %s in %s to %s%s', format_type(s.seqtypid, NULL), s.seqstart, s.seqincrement, s.seqmin,
           s.seqmax, CASE WHEN s.seqcycle THEN ', again and again' END) FROM pg_sequence s WHERE s.seqrelid = c.oid))
    FROM relation c
    UNION ALL
    SELECT format('column %I.%I', c.relname, a.attname),
      concat_ws(', ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
        CASE WHEN a.attcollation <> t.typcollation THEN 'collation ' || a.attcollation::regcollation::text END,
        CASE WHEN a.attidentity <> '' THEN 'identity ' || a.attidentity::text END,
        CASE WHEN a.attgenerated <> '' THEN 'generated ' || a.attgenerated::text END,
        'default ' || pg_get_expr(d.adbin, d.adrelid), CASE WHEN a.attacl IS NOT NULL THEN 'rights: ' || tollgate.rights(a.attacl, 'c', c.relowner) END)
    FROM relation c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relkind <> 'S'
    UNION ALL
    SELECT format('constraint %I.%I', c.relname, k.conname),
      concat_ws(', ', pg_get_constraintdef(k.oid), CASE WHEN NOT k.convalidated THEN 'not validated' END)
    FROM relation c JOIN pg_constraint k ON k.conrelid = c.oid
    WHERE k.contype <> 'n' OR NOT k.convalidated -- columns say NOT NULL themselves
    UNION ALL
    SELECT format('index %I', i.relname),
      concat_ws(', ', pg_get_indexdef(i.oid), CASE WHEN NOT x.indisvalid THEN 'invalid' END)
    FROM relation c JOIN pg_index x ON x.indrelid = c.oid JOIN pg_class i ON i.oid = x.indexrelid
    UNION ALL
    SELECT format('trigger %I.%I', c.relname, g.tgname), format('%s, enabled: %s', pg_get_triggerdef(g.oid), g.tgenabled)
    FROM relation c JOIN pg_trigger g ON g.tgrelid = c.oid WHERE NOT g.tgisinternal
    UNION ALL
    SELECT format('policy %I.%I', c.relname, p.polname),
      concat_ws(', ', CASE WHEN p.polpermissive THEN 'permissive' ELSE 'restrictive' END, 'for ' || p.polcmd::text,
        (SELECT 'to ' || string_agg(tollgate.role_called(r), ', ') FROM unnest(p.polroles) r),
        'using ' || pg_get_expr(p.polqual, c.oid), 'check ' || pg_get_expr(p.polwithcheck, c.oid))
    FROM relation c JOIN pg_policy p ON p.polrelid = c.oid
    UNION ALL
    SELECT format('rule %I.%I', c.relname, r.rulename), pg_get_ruledef(r.oid)
    FROM relation c JOIN pg_rewrite r ON r.ev_class = c.oid WHERE r.rulename <> '_RETURN'
    UNION ALL
    SELECT format('function %I(%s)', f.proname, pg_get_function_identity_arguments(f.oid)),
      concat_ws(', ', CASE WHEN f.prokind = 'a' THEN 'aggregate' ELSE pg_get_functiondef(f.oid) END,
        'of ' || tollgate.role_called(f.proowner), 'rights: ' || tollgate.rights(f.proacl, 'f', f.proowner))
    FROM member m JOIN pg_proc f ON f.oid = m.objid WHERE m.classid = 'pg_proc'::regclass
    UNION ALL
    SELECT format('type %I', t.typname),
      concat_ws(', ', 'of ' || tollgate.role_called(t.typowner), 'rights: ' || tollgate.rights(t.typacl, 'T', t.typowner),
        (SELECT 'one of ' || string_agg(quote_literal(e.enumlabel), ', ' ORDER BY e.enumsortorder)
         FROM pg_enum e WHERE e.enumtypid = t.oid),
        CASE WHEN t.typtype = 'd' THEN 'domain of ' || format_type(t.typbasetype, t.typtypmod) END,
        CASE WHEN t.typnotnull THEN 'not null' END, 'default ' || t.typdefault,
        (SELECT string_agg(pg_get_constraintdef(k.oid), ', ' ORDER BY k.conname)
         FROM pg_constraint k WHERE k.contypid = t.oid))
    FROM member m JOIN pg_type t ON t.oid = m.objid WHERE m.classid = 'pg_type'::regclass AND t.typtype IN ('d', 'e', 'r')
  )
  SELECT jsonb_object_agg(o.name, regexp_replace(o.definition, format('\m%s\M', schema), 'tenant', 'g')) FROM object o
$$;

-- Lists the differences of two structures as { object, expected, found }; NULL in it is a missing object. Returns NULL for equal
-- structures and for structures that cannot be compared.
CREATE FUNCTION tollgate.differences(expected jsonb, found jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT jsonb_agg(jsonb_build_object('object', o, 'expected', expected ->> o, 'found', found ->> o) ORDER BY o)
  FROM (SELECT jsonb_object_keys(expected) UNION SELECT jsonb_object_keys(found)) AS both_of (o)
  WHERE expected -> 'form' = found -> 'form' AND expected -> o IS DISTINCT FROM found -> o
$$;

-- Compares schemas with the structure that their last migration left. Equal marks mean that those structures were equal.
CREATE FUNCTION tollgate.drift(schemas text[]) RETURNS TABLE (schema text, mark text, differences jsonb)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT t.role, left(encode(sha256(convert_to(t.structure::text, 'UTF8')), 'hex'), 16),
    tollgate.differences(t.structure, tollgate.structure(t.role))
  FROM tollgate.tenants t WHERE t.role = ANY (schemas)
$$;

-- Lists the schemas that have run a file whose text in `files`, a list of { series, name, sha256 }, is another one now.
CREATE FUNCTION tollgate.changed_files(files jsonb) RETURNS TABLE (schema text, file text)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  own name;
BEGIN
  FOR own IN SELECT t.role FROM tollgate.tenants t WHERE to_regclass(format('%I.schema_migrations', t.role)) IS NOT NULL LOOP
    RETURN QUERY EXECUTE format(
      'SELECT %L, m.series || ''/'' || m.name FROM %I.schema_migrations m JOIN jsonb_array_elements($1) f
         ON f ->> ''series'' = m.series AND f ->> ''name'' = m.name WHERE f ->> ''sha256'' <> m.sha256', own, own) USING files;
  END LOOP;
END $$;

-- Migrates one tenant's schema: runs the files that it has not seen, in one transaction and in the order of the list. `files`
-- is a list of { series, name, sha256, text }. A file is identified by its series and name, so that a file with a lower number
-- that arrives later runs too. Returns { applied: ["series/name"] }, or { refused } when
--   a file that ran here has another text now (changed) or is not in the list (unknown);
--   the schema was changed outside of migrations (drift) and `allow_drift` is false. When it is true, the changed schema
--   becomes the expected one.
-- Concurrent calls for a schema wait for each other. Waiting for a table that is in use fails with lock_not_available.
CREATE FUNCTION tollgate.migrate(schema text, files jsonb, allow_drift boolean DEFAULT false) RETURNS jsonb
LANGUAGE plpgsql VOLATILE
AS $$
DECLARE
  applied text[] := '{}';
  drift jsonb;
  wrong record;
  pending jsonb[];
  file jsonb;
BEGIN
  PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('tollgate.migrate'), pg_catalog.hashtext(schema));
  -- A file creates its objects in the tenant's schema.
  PERFORM pg_catalog.set_config('search_path', pg_catalog.format('%I, pg_temp', schema), true),
    -- Short, because the tenant's own statements queue behind a statement that waits for a table.
    pg_catalog.set_config('lock_timeout', '1s', true);
  CREATE TABLE IF NOT EXISTS schema_migrations (
    series text NOT NULL, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (series, name)
  );
  SELECT m.series, m.name, f IS NULL AS missing INTO wrong
  FROM schema_migrations m
  LEFT JOIN pg_catalog.jsonb_array_elements(files) f ON f ->> 'series' = m.series AND f ->> 'name' = m.name
  WHERE f ->> 'sha256' IS DISTINCT FROM m.sha256 ORDER BY m.applied_at, m.series, m.name LIMIT 1;
  IF FOUND THEN
    RETURN pg_catalog.jsonb_build_object('refused', CASE WHEN wrong.missing THEN 'unknown' ELSE 'changed' END,
      'file', wrong.series || '/' || wrong.name);
  END IF;
  pending := ARRAY(
    SELECT f FROM pg_catalog.jsonb_array_elements(files) WITH ORDINALITY AS t (f, n)
    WHERE NOT EXISTS (SELECT FROM schema_migrations m WHERE m.series = f ->> 'series' AND m.name = f ->> 'name') ORDER BY n);
  IF pg_catalog.cardinality(pending) > 0 THEN
    IF NOT allow_drift THEN
      SELECT d.differences INTO drift FROM tollgate.drift(ARRAY[schema]) d;
      IF drift IS NOT NULL THEN
        RETURN pg_catalog.jsonb_build_object('refused', 'drift', 'differences', drift);
      END IF;
    END IF;
    FOREACH file IN ARRAY pending LOOP
      EXECUTE file ->> 'text';
      INSERT INTO schema_migrations (series, name, sha256) VALUES (file ->> 'series', file ->> 'name', file ->> 'sha256');
      applied := applied || pg_catalog.format('%s/%s', file ->> 'series', file ->> 'name');
    END LOOP;
    -- A table with new columns logs its changes with them.
    PERFORM tollgate.track(g.tgrelid) FROM (
      SELECT DISTINCT g.tgrelid FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid
      JOIN pg_trigger g ON g.tgrelid = c.oid AND g.tgfoid = 'tollgate.note_changes'::regproc
      JOIN pg_attribute a ON a.attrelid = c.oid AND age(a.xmin) <= age(pg_current_xact_id()::xid)
      WHERE n.nspname = schema
    ) g;
    UPDATE tollgate.tenants t SET structure = tollgate.structure(schema) WHERE t.role = schema;
  END IF;
  RETURN pg_catalog.jsonb_build_object('applied', applied);
END $$;

REVOKE ALL ON FUNCTION tollgate.role_called(oid), tollgate.rights(aclitem[], "char", oid), tollgate.structure(text),
  tollgate.differences(jsonb, jsonb), tollgate.drift(text[]), tollgate.changed_files(jsonb), tollgate.migrate(text, jsonb, boolean) FROM PUBLIC;
