-- The wall between tenants on shared tables. A signed context proves which tenant a transaction belongs to; a plain setting
-- never does. A context is `v1.<key id>.<tenant>.<database>.<expiry, epoch seconds>.<mac>`; the MAC is HMAC-SHA256
-- (RFC 2104) in lower-case hex over everything before the last dot. src/tenant-db/signed-context.ts signs, `current_tenant` verifies.

-- A key as HMAC needs it: padded to SHA-256's block and combined with the two constants of RFC 2104, once.
CREATE TABLE tollgate.context_keys (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,39}$'),
  inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
  outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64),
  created_at timestamptz NOT NULL DEFAULT now()
);

-- The tenant of this transaction. Returns NULL without a context, so that policies match no row. Raises an error for a context
-- that is not valid. Accepts every key in the table: the one that signs and those that are being rotated out.
-- The message is fixed, because the author of a hostile statement reads it.
CREATE FUNCTION tollgate.current_tenant() RETURNS text
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  context CONSTANT text := NULLIF(current_setting('tollgate.context', true), '');
  fields CONSTANT text[] := string_to_array(context, '.');
  body bytea;
  found_inner bytea;
  found_outer bytea;
  expected bytea;
  seconds_left numeric;
BEGIN
  IF context IS NULL THEN
    RETURN NULL;
  END IF;
  IF length(context) <= 256 THEN -- the longest valid one has 223 characters; longer texts are not hashed
    body := convert_to(left(context, -65), 'UTF8');
    SELECT k.inner_pad, k.outer_pad INTO found_inner, found_outer FROM tollgate.context_keys k WHERE k.id = fields[2];
    -- An unknown key costs the same work as a wrong MAC.
    found_inner := COALESCE(found_inner, decode(repeat('00', 64), 'hex'));
    expected := sha256(COALESCE(found_outer, found_inner) || sha256(found_inner || body));
    -- Compared through keyed digests, so that the comparison's time reveals nothing about the expected MAC.
    IF sha256(found_inner || convert_to(encode(expected, 'hex'), 'UTF8')) = sha256(found_inner || convert_to(fields[6], 'UTF8'))
      AND found_outer IS NOT NULL
      AND cardinality(fields) = 6 AND fields[1] = 'v1'
      AND fields[3] ~ '^[a-z0-9][a-z0-9_-]*$'
      AND fields[4] = current_database()
      AND fields[5] ~ '^[0-9]+$'
    THEN
      seconds_left := fields[5]::numeric - extract(epoch FROM now());
      -- Signers give 2 minutes. The upper bound limits a faulty or leaked signer.
      IF seconds_left > 0 AND seconds_left <= 600 THEN
        RETURN fields[3];
      END IF;
    END IF;
  END IF;
  RAISE EXCEPTION 'tenant context refused' USING ERRCODE = 'insufficient_privilege';
END $$;

-- Opens a batch; it is the first statement of every batch. It resets what an earlier statement left on this pooled
-- connection, then sets everything that the batch depends on until the end of its transaction. It runs with the caller's
-- rights. It has no SET clause for search_path, because that would undo the setting of the body. RESET ALL does not reset
-- the seed of random(): a tenant that set it would know the next tenant's numbers. So each batch gets a new strong seed.
CREATE FUNCTION tollgate.enter(context text, statement_timeout_ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
  -- First, because a limit on transactions that is only replaced keeps the running timer: it would end this batch.
  PERFORM pg_catalog.set_config('transaction_timeout', '0', true);
  RESET ALL;
  PERFORM pg_catalog.set_config('role', 'none', true),
    pg_catalog.set_config('row_security', 'on', true),
    pg_catalog.set_config('search_path', 'pg_catalog, public, pg_temp', true),
    pg_catalog.set_config('statement_timeout', statement_timeout_ms::pg_catalog.text, true),
    pg_catalog.set_config('lock_timeout', statement_timeout_ms::pg_catalog.text, true),
    pg_catalog.set_config('tollgate.context', context, true),
    -- A bigint of 64 random bits, scaled to the range from -1 to 1 that setseed takes.
    pg_catalog.setseed(
      pg_catalog.hashtextextended(pg_catalog.gen_random_uuid()::pg_catalog.text, 0) / 9223372036854775808.0
    );
END $$;

-- Adds a key that signs contexts from now on. Can be repeated. An id never gets another secret, because valid contexts that
-- name it may be in use.
CREATE FUNCTION tollgate.install_context_key(key_id text, secret text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  key bytea := convert_to(secret, 'UTF8');
  inner_bytes bytea := decode(repeat('36', 64), 'hex');
  outer_bytes bytea := decode(repeat('5c', 64), 'hex');
BEGIN
  IF length(key) < 32 THEN
    RAISE EXCEPTION 'the secret of context key % has fewer than 32 bytes', key_id USING ERRCODE = 'invalid_parameter_value';
  END IF;
  IF length(key) > 64 THEN
    key := sha256(key);
  END IF;
  FOR i IN 0 .. length(key) - 1 LOOP
    inner_bytes := set_byte(inner_bytes, i, get_byte(inner_bytes, i) # get_byte(key, i));
    outer_bytes := set_byte(outer_bytes, i, get_byte(outer_bytes, i) # get_byte(key, i));
  END LOOP;
  INSERT INTO tollgate.context_keys (id, inner_pad, outer_pad) VALUES (key_id, inner_bytes, outer_bytes)
  ON CONFLICT (id) DO NOTHING;
  IF NOT EXISTS (SELECT FROM tollgate.context_keys k WHERE k.id = key_id AND k.inner_pad = inner_bytes) THEN
    RAISE EXCEPTION 'context key % has another secret: give the new secret an id of its own', key_id
      USING ERRCODE = 'unique_violation';
  END IF;
END $$;

-- Contexts signed with this key are refused from now on. Returns whether the key existed.
CREATE FUNCTION tollgate.retire_context_key(key_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  DELETE FROM tollgate.context_keys k WHERE k.id = key_id;
  RETURN FOUND;
END $$;

REVOKE ALL ON TABLE tollgate.context_keys FROM PUBLIC;
REVOKE ALL ON FUNCTION tollgate.current_tenant(), tollgate.enter(text, integer), tollgate.install_context_key(text, text),
  tollgate.retire_context_key(text) FROM PUBLIC;
DO $$
BEGIN
  EXECUTE format('GRANT EXECUTE ON FUNCTION tollgate.current_tenant(), tollgate.enter(text, integer) TO %I', tollgate.app_role());
END $$;
