-- The table with which Tollgate proves that shared tables keep tenants apart (src/tenant-db/isolation.ts). It holds one row
-- of each of two canary tenants, which the set-up of the shard writes and the sweep restores. No other tenant can have a row:
-- nothing would delete it when that tenant is removed. It is in Tollgate's own schema, so that it counts as no
-- table of a tenant: it is not copied, backed up or shown.

CREATE TABLE tollgate.isolation_proof (
  tenant_id text NOT NULL CHECK (tenant_id IN ('canary-a', 'canary-b')),
  id text NOT NULL,
  note text NOT NULL DEFAULT '',
  PRIMARY KEY (tenant_id, id)
);
SELECT tollgate.isolate('tollgate.isolation_proof');
-- The analytics login reads tenants' tables only, and this is none.
DO $$
BEGIN
  EXECUTE format('REVOKE SELECT ON tollgate.isolation_proof FROM %I', tollgate.analytics_role());
END $$;
