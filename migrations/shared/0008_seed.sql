-- What a statement leaves on a pooled connection and RESET ALL does not undo: the seed of random(), by which whoever set it
-- would know the numbers that the next tenant draws. Opening a batch sows it anew, from the server's strong generator.

CREATE OR REPLACE FUNCTION tollgate.enter(context text, statement_timeout_ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
  RESET ALL;
  PERFORM pg_catalog.set_config('role', 'none', true),
    pg_catalog.set_config('row_security', 'on', true),
    pg_catalog.set_config('search_path', 'pg_catalog, public, pg_temp', true),
    pg_catalog.set_config('statement_timeout', statement_timeout_ms::pg_catalog.text, true),
    pg_catalog.set_config('lock_timeout', statement_timeout_ms::pg_catalog.text, true),
    pg_catalog.set_config('tollgate.context', context, true),
    -- A bigint of 64 random bits, brought into the range from -1 to 1 that it takes.
    pg_catalog.setseed(
      pg_catalog.hashtextextended(pg_catalog.gen_random_uuid()::pg_catalog.text, 0) / 9223372036854775808.0
    );
END $$;
