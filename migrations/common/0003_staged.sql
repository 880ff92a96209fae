-- Reads a tenant's rows as they were at an earlier moment, and restores them.

-- A restore stages rows here first, in portions. One transaction then puts them in place, after all of them were checked.
-- Until then the tenant's tables do not change.
CREATE TABLE tollgate.staged (
  tenant_id text NOT NULL,
  job bigint NOT NULL,
  -- The row's line in its file, so that staging a row twice does nothing. Below zero: the number of an attempt to put the
  -- rows in place. Zero: the rows are in place.
  line bigint NOT NULL,
  table_name name NOT NULL,
  -- Its values as text, in the order of the file's columns.
  cells jsonb NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, job, line)
);

-- Serves reads of an earlier moment: for each key that changed since then, the row before its first change; NULL when there
-- was none.
CREATE TABLE tollgate.undone (
  tenant_id text NOT NULL,
  job bigint NOT NULL,
  table_name name NOT NULL,
  -- SHA-256 of the key: the key itself may be too long for an index.
  key_sum bytea NOT NULL,
  before jsonb,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, job, table_name, key_sum)
);
REVOKE ALL ON tollgate.staged, tollgate.undone FROM PUBLIC;

-- The staged rows of this tenant. The tenant's own login puts them in place, so that the walls apply.
CREATE FUNCTION tollgate.staged_rows(of_job bigint, of_table name) RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  RETURN QUERY SELECT s.cells FROM tollgate.staged s
  WHERE s.tenant_id = tollgate.current_tenant() AND s.job = of_job AND s.table_name = of_table;
END $$;

-- Aborts the transaction unless the condition holds.
CREATE FUNCTION tollgate.insist(holds boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF holds IS NOT TRUE THEN
    RAISE EXCEPTION 'a condition of the restore does not hold' USING ERRCODE = 'TG003';
  END IF;
END $$;

-- Completes the transaction that puts rows in place and marks the job as done, so that it commits once even when answers are
-- lost and several attempts run. Each attempt stages its number first; only the newest attempt commits.
CREATE FUNCTION tollgate.put_back(of_job bigint, of_try integer) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  tenant CONSTANT text := tollgate.current_tenant();
BEGIN
  PERFORM tollgate.insist(of_try = (
    SELECT max(-s.line) FROM tollgate.staged s WHERE s.tenant_id = tenant AND s.job = of_job AND s.line < 0));
  INSERT INTO tollgate.staged (tenant_id, job, line, table_name, cells) VALUES (tenant, of_job, 0, '', '[]') ON CONFLICT DO NOTHING;
  PERFORM tollgate.insist(FOUND);
END $$;
REVOKE ALL ON FUNCTION tollgate.staged_rows(bigint, name), tollgate.insist(boolean), tollgate.put_back(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tollgate.staged_rows(bigint, name), tollgate.insist(boolean), tollgate.put_back(bigint, integer) TO PUBLIC;
