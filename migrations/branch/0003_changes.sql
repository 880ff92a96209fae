-- What every tenant changes, as it changes it. Three things rest on this log: a tenant that moves is copied while it
-- writes, and then the rows that changed are copied again; a tenant can be put back to an earlier moment, by undoing what
-- came after it; and the gate that every write passes is shut when the tenant's rows are elsewhere, so that no statement that
-- comes late can write to the old copy.
-- The same file stands in migrations/shared and in migrations/branch.

-- One row for every changed row: what it was before, NULL when there was none. Values are text, as PostgreSQL writes them,
-- so that any type comes back as it was. `at` is the start of the transaction: its changes are undone together. `xid` tells
-- what a reader may have missed: transactions that were under way when it looked.
CREATE TABLE tollgate.changes (
  tenant_id text NOT NULL,
  n bigint GENERATED ALWAYS AS IDENTITY,
  at timestamptz NOT NULL DEFAULT now(),
  xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  table_name name NOT NULL,
  key jsonb NOT NULL,
  before jsonb,
  PRIMARY KEY (tenant_id, n)
);
CREATE INDEX changes_by_transaction ON tollgate.changes (tenant_id, xid);
CREATE INDEX changes_by_time ON tollgate.changes (at);

-- Tenants whose rows here are not the ones in force: `shut` ones cannot be written, and what is written to `loading` ones
-- is a copy, which is not noted. Who copies names the token of the day: what comes late from an earlier one is refused.
CREATE TABLE tollgate.gates (
  tenant_id text PRIMARY KEY,
  state text NOT NULL CHECK (state IN ('shut', 'loading')),
  token bigint NOT NULL,
  since timestamptz NOT NULL DEFAULT now()
);

-- Notes the changes of one statement. A writer holds its tenant's lock until its transaction ends, so that whoever moves
-- the gate has waited for it. It must see where the gate is now, which only READ COMMITTED does. The arguments are
-- expressions that `track` has made of the table's columns: a row's key, its image, and whether two rows have one key.
CREATE FUNCTION tollgate.note_changes() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := tollgate.current_tenant();
  gate text;
BEGIN
  IF tenant IS NOT NULL THEN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'tenants write in READ COMMITTED alone' USING ERRCODE = 'serialization_failure';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(hashtext('tollgate.gate'), hashtext(tenant));
    SELECT g.state INTO gate FROM tollgate.gates g WHERE g.tenant_id = tenant;
    IF gate = 'shut' THEN
      RAISE EXCEPTION 'the rows of this tenant are elsewhere' USING ERRCODE = 'TG001';
    ELSIF gate = 'loading' THEN
      RETURN NULL;
    END IF;
  END IF;
  IF TG_OP <> 'DELETE' THEN -- a condition of its own: without new rows their name means nothing
    IF EXISTS (SELECT FROM new_rows r WHERE octet_length(r::text) > 8000000) THEN
      -- It could be neither noted when it changes nor copied in one request.
      RAISE EXCEPTION 'a row of over 8 MB' USING ERRCODE = 'program_limit_exceeded';
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

-- Moves a tenant's gate: to `shut`, to `loading`, or, with NULL, open. From when a shut gate is committed, nothing writes
-- this tenant's rows here. Waits for the writers that are under way, as long as lock_timeout allows. May be repeated.
CREATE FUNCTION tollgate.set_gate(tenant text, new_state text, new_token bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtext('tollgate.gate'), hashtext(tenant));
  DELETE FROM tollgate.gates g WHERE g.tenant_id = tenant;
  IF new_state IS NOT NULL THEN
    INSERT INTO tollgate.gates (tenant_id, state, token) VALUES (tenant, new_state, new_token);
  END IF;
END $$;

-- Refuses to go on with a copy whose token is no longer the one of the gate, and keeps the gate where it is until the
-- transaction ends.
CREATE FUNCTION tollgate.loading(expected bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := tollgate.current_tenant();
BEGIN
  PERFORM pg_advisory_xact_lock_shared(hashtext('tollgate.gate'), hashtext(tenant));
  IF NOT EXISTS (SELECT FROM tollgate.gates g WHERE g.tenant_id = tenant AND g.state = 'loading' AND g.token = expected) THEN
    RAISE EXCEPTION 'nothing is copied here under this token' USING ERRCODE = 'TG002';
  END IF;
END $$;
REVOKE ALL ON FUNCTION tollgate.track(regclass), tollgate.set_gate(text, text, bigint), tollgate.loading(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tollgate.loading(bigint) TO PUBLIC; -- it tells a tenant nothing that it does not know
REVOKE ALL ON tollgate.changes, tollgate.gates FROM PUBLIC;
