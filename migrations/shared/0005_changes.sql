-- What every tenant changes, as it changes it. Three things rest on this log: a tenant that moves is copied while it
-- writes, and then the rows that changed are copied again; a tenant can be put back to an earlier moment, by undoing what
-- came after it; and a tenant that has moved is fenced, so that no statement that comes late can write to the old copy.
-- The same file stands in migrations/shared and in migrations/branch.

-- One row for every changed row: what it was before, NULL when there was none. Values are text, as PostgreSQL writes them,
-- so that any type comes back as it was. `at` is the start of the transaction: its changes are undone together.
CREATE TABLE tollgate.changes (
  tenant_id text NOT NULL,
  n bigint GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL DEFAULT now(),
  table_name name NOT NULL,
  key jsonb NOT NULL,
  before jsonb,
  PRIMARY KEY (tenant_id, n)
);
CREATE INDEX changes_by_time ON tollgate.changes (at);

-- Tenants whose rows here are no longer the ones in force.
CREATE TABLE tollgate.fences (
  tenant_id text PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT now()
);

-- Notes the changes of one statement. A writer holds its tenant's lock until its transaction ends, so that whoever sets
-- up a fence has waited for it. It must see the newest fence, which only READ COMMITTED does. The arguments are
-- expressions that `track` has made of the table's columns: a row's key, its image, and whether two rows have one key.
CREATE FUNCTION tollgate.note_changes() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := tollgate.current_tenant();
BEGIN
  IF tenant IS NOT NULL THEN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'tenants write in READ COMMITTED alone' USING ERRCODE = 'serialization_failure';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtext('tollgate.fence'), hashtext(tenant));
    IF EXISTS (SELECT FROM tollgate.fences f WHERE f.tenant_id = tenant) THEN
      RAISE EXCEPTION 'the rows of this tenant are elsewhere' USING ERRCODE = 'TG001';
    END IF;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    EXECUTE format('INSERT INTO tollgate.changes (tenant_id, table_name, key, before)
                    SELECT r.tenant_id, %L, %s, %s FROM old_rows r', TG_TABLE_NAME, TG_ARGV[0], TG_ARGV[1]);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    -- A row whose key has changed was not there before under its new key.
    EXECUTE format('INSERT INTO tollgate.changes (tenant_id, table_name, key) SELECT r.tenant_id, %L, %s FROM new_rows r %s',
      TG_TABLE_NAME, TG_ARGV[0],
      CASE TG_OP WHEN 'UPDATE' THEN format('WHERE NOT EXISTS (SELECT FROM old_rows o WHERE %s)', TG_ARGV[2]) END);
  END IF;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tollgate.note_changes() FROM PUBLIC;

-- Has the changes of a table noted. Run it again when the table has got other columns.
CREATE FUNCTION tollgate.track(target regclass) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  key_of text;
  image_of text;
  same_key text;
  verb text;
BEGIN
  SELECT format('jsonb_object(%L::text[], ARRAY[%s])', array_agg(a.attname ORDER BY a.attnum),
      string_agg(format('r.%I::text', a.attname), ', ' ORDER BY a.attnum)),
    string_agg(format('o.%1$I = r.%1$I', a.attname), ' AND ')
  INTO key_of, same_key
  FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
  WHERE i.indrelid = target AND i.indisprimary;
  SELECT format('jsonb_object(%L::text[], ARRAY[%s])', array_agg(a.attname ORDER BY a.attnum),
      string_agg(format('r.%I::text', a.attname), ', ' ORDER BY a.attnum))
  INTO image_of
  FROM pg_attribute a WHERE a.attrelid = target AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '';
  IF same_key IS NULL THEN
    RAISE EXCEPTION 'table % needs a primary key', target;
  END IF;
  FOREACH verb IN ARRAY ARRAY['INSERT', 'UPDATE', 'DELETE'] LOOP
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER %s ON %s REFERENCING %s %s
                    FOR EACH STATEMENT EXECUTE FUNCTION tollgate.note_changes(%L, %L, %L)',
      'tollgate_' || lower(verb), verb, target, CASE WHEN verb <> 'INSERT' THEN 'OLD TABLE AS old_rows' END,
      CASE WHEN verb <> 'DELETE' THEN 'NEW TABLE AS new_rows' END, key_of, image_of, same_key);
  END LOOP;
END $$;

-- From when this returns until `unfence`, nothing writes this tenant's rows here. Waits for the writers that are under way,
-- as long as lock_timeout allows. Both may be repeated.
CREATE FUNCTION tollgate.fence(tenant text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('tollgate.fence'), hashtext(tenant));
  INSERT INTO tollgate.fences (tenant_id) VALUES (tenant) ON CONFLICT DO NOTHING;
END $$;
CREATE FUNCTION tollgate.unfence(tenant text) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$ DELETE FROM tollgate.fences f WHERE f.tenant_id = tenant $$;
REVOKE ALL ON FUNCTION tollgate.track(regclass), tollgate.fence(text), tollgate.unfence(text) FROM PUBLIC;
REVOKE ALL ON tollgate.changes, tollgate.fences FROM PUBLIC;
