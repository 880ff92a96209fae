-- How a tenant's rows are read as they were, and put back. The program of before takes the two functions that run with
-- their owner's rights for holes in the wall and serves no tenant here: deploy the new one right after.
-- The same file stands in migrations/shared and in migrations/branch.

-- Rows are put back by one transaction: they are laid ready here first, piece by piece, and nothing of the tenant changes
-- before all of them are there and were checked.
CREATE TABLE tollgate.staged (
  tenant_id text NOT NULL,
  job bigint NOT NULL,
  -- Of the file that the row comes from: laying it ready twice does nothing. Below zero: a try to put the rows in place;
  -- zero: they were.
  line bigint NOT NULL,
  table_name name NOT NULL,
  -- Its values as text, in the order of the file's columns.
  cells jsonb NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, job, line)
);

-- While a tenant is read as it was at an earlier moment: of each key that has changed since, the row before the first of
-- those changes; NULL when there was none.
CREATE TABLE tollgate.undone (
  tenant_id text NOT NULL,
  job bigint NOT NULL,
  table_name name NOT NULL,
  -- SHA-256 of the key, which may be longer than an index takes.
  key_sum bytea NOT NULL,
  before jsonb,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, job, table_name, key_sum)
);
REVOKE ALL ON tollgate.staged, tollgate.undone FROM PUBLIC;

-- What was laid ready for this tenant: it is put in place as the tenant itself, so that the walls hold for it.
CREATE FUNCTION tollgate.staged_rows(of_job bigint, of_table name) RETURNS SETOF jsonb
LANGUAGE sql STABLE SECURITY DEFINER ROWS 100000
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT s.cells FROM tollgate.staged s
  WHERE s.tenant_id = tollgate.current_tenant() AND s.job = of_job AND s.table_name = of_table
$$;

-- Ends a transaction whose outcome is not what it must be.
CREATE FUNCTION tollgate.insist(holds boolean) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF holds IS NOT TRUE THEN
    RAISE EXCEPTION 'the rows are not what they should be' USING ERRCODE = 'TG003';
  END IF;
END $$;

-- Ends the transaction that puts rows in place, and marks the job's rows as put back: they are once, although an answer may
-- be lost and several tries be under way. Before each try its number is laid ready; only the newest commits.
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

-- What the log keeps as text must read the same whatever a statement had set for its own session.
ALTER FUNCTION tollgate.note_changes() SET datestyle = 'ISO, MDY';
ALTER FUNCTION tollgate.note_changes() SET intervalstyle = 'postgres';
ALTER FUNCTION tollgate.note_changes() SET timezone = 'UTC';
ALTER FUNCTION tollgate.note_changes() SET bytea_output = 'hex';
ALTER FUNCTION tollgate.note_changes() SET extra_float_digits = 1;
