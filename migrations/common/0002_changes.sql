-- The log of every tenant's changes, and the write gate. They serve three features. A move copies a tenant while it writes,
-- then copies the changed rows again. A restore undoes the changes after an earlier moment. The gate is shut when the
-- tenant's rows are elsewhere, so that a late statement cannot write to the old copy.

-- One row for every changed row. `before` is its earlier value, NULL when there was none. Values are PostgreSQL's own text
-- form, so that every type can be restored. `at` is the start of the transaction, whose changes are undone together. `xid`
-- lets a reader find changes of transactions that were open at its last read.
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

-- Tenants whose rows here are not the current ones. `shut`: no writes. `loading`: writes are a copy and are not logged. A copy
-- names its token, so that late writes of an earlier copy are refused.
CREATE TABLE tollgate.gates (
  tenant_id text PRIMARY KEY,
  state text NOT NULL CHECK (state IN ('shut', 'loading')),
  token bigint NOT NULL,
  since timestamptz NOT NULL DEFAULT now()
);

-- The key of a tenant's gate lock. Every login can read held locks in pg_locks, beside the tables that the holder uses. So the
-- key comes from a secret of this database: from a tenant's id alone it cannot be computed.
CREATE TABLE tollgate.lock_secret (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  secret bytea NOT NULL
);
INSERT INTO tollgate.lock_secret (secret) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
REVOKE ALL ON tollgate.lock_secret FROM PUBLIC;
CREATE FUNCTION tollgate.gate_lock(tenant text) RETURNS bigint
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
RETURN (SELECT ('x' || left(encode(sha256(s.secret || convert_to(tenant, 'UTF8')), 'hex'), 16))::bit(64)::bigint
        FROM tollgate.lock_secret s);
REVOKE ALL ON FUNCTION tollgate.gate_lock(text) FROM PUBLIC;

-- Logs the changes of one statement. A writer holds its tenant's lock until its transaction ends, so that a change of the
-- gate waits for it. The writer must see the gate's newest state, which only READ COMMITTED allows. The arguments are
-- expressions that `track` builds from the table's columns: a row's key, its values, and whether two rows have one key.
-- The settings fix the text form of values, which a tenant's statement could otherwise change for its session.
CREATE FUNCTION tollgate.note_changes() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, MDY'
SET intervalstyle = 'postgres'
SET timezone = 'UTC'
SET bytea_output = 'hex'
SET extra_float_digits = 1
AS $$
DECLARE
  tenant CONSTANT text := tollgate.current_tenant();
  gate text;
BEGIN
  IF tenant IS NOT NULL THEN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'tenants write in READ COMMITTED only' USING ERRCODE = 'serialization_failure';
    END IF;
    PERFORM pg_advisory_xact_lock_shared(tollgate.gate_lock(tenant));
    SELECT g.state INTO gate FROM tollgate.gates g WHERE g.tenant_id = tenant;
    IF gate = 'shut' THEN
      RAISE EXCEPTION 'the rows of this tenant are elsewhere' USING ERRCODE = 'TG001';
    ELSIF gate = 'loading' THEN
      RETURN NULL;
    END IF;
  END IF;
  IF TG_OP <> 'DELETE' THEN -- a separate IF: without new rows the name `new_rows` does not exist
    IF EXISTS (SELECT FROM new_rows r WHERE octet_length(r::text) > 8000000) THEN
      -- A larger row could neither be logged nor copied in one request.
      RAISE EXCEPTION 'a row has more than 8 MB' USING ERRCODE = 'program_limit_exceeded';
    END IF;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    EXECUTE format('INSERT INTO tollgate.changes (tenant_id, table_name, key, before)
                    SELECT r.tenant_id, %L, %s, %s FROM old_rows r', TG_TABLE_NAME, TG_ARGV[0], TG_ARGV[1]);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    -- A row with a changed key had no earlier value under its new key.
    EXECUTE format('INSERT INTO tollgate.changes (tenant_id, table_name, key) SELECT r.tenant_id, %L, %s FROM new_rows r %s',
      TG_TABLE_NAME, TG_ARGV[0],
      CASE TG_OP WHEN 'UPDATE' THEN format('WHERE NOT EXISTS (SELECT FROM old_rows o WHERE %s)', TG_ARGV[2]) END);
  END IF;
  RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION tollgate.note_changes() FROM PUBLIC;

-- Starts logging a table's changes. Must run again when the table's columns change.
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

-- Sets a tenant's gate to `shut`, to `loading`, or with NULL to open. Once a shut gate is committed, no statement writes this
-- tenant's rows here. Waits for open writers as long as lock_timeout allows. Can be repeated.
CREATE FUNCTION tollgate.set_gate(tenant text, new_state text, new_token bigint) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(tollgate.gate_lock(tenant));
  DELETE FROM tollgate.gates g WHERE g.tenant_id = tenant;
  IF new_state IS NOT NULL THEN
    INSERT INTO tollgate.gates (tenant_id, state, token) VALUES (tenant, new_state, new_token);
  END IF;
END $$;

-- Refuses a copy whose token is not the gate's token. Otherwise the gate keeps its state until the transaction ends.
CREATE FUNCTION tollgate.loading(expected bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := tollgate.current_tenant();
BEGIN
  PERFORM pg_advisory_xact_lock_shared(tollgate.gate_lock(tenant));
  IF NOT EXISTS (SELECT FROM tollgate.gates g WHERE g.tenant_id = tenant AND g.state = 'loading' AND g.token = expected) THEN
    RAISE EXCEPTION 'no copy with this token is being written' USING ERRCODE = 'TG002';
  END IF;
END $$;
REVOKE ALL ON FUNCTION tollgate.track(regclass), tollgate.set_gate(text, text, bigint), tollgate.loading(bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tollgate.loading(bigint) TO PUBLIC; -- it reveals nothing to a tenant
REVOKE ALL ON tollgate.changes, tollgate.gates FROM PUBLIC;
