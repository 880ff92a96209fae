-- Where each tenant's rows are: shards (databases that hold tenants) and placements (one tenant's part of a shard).
-- The dispatcher reads rows rather than hashing the tenant's id, so that a single tenant can be moved.

CREATE TABLE shards (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,59}$'),
  -- shared: tables with row security. schema: a schema and a login role for each tenant. database: only one tenant.
  strategy text NOT NULL CHECK (strategy IN ('shared', 'schema', 'database')),
  region text NOT NULL,
  -- Its address, `host` or `host:port`, and the database's name. NULL while the shard is being created.
  host text,
  database text,
  -- Encrypted `user:password` pairs: the owner, who migrates and creates schemas and roles, and the login that tools on
  -- shared tables run as.
  owner_login text,
  app_login text,
  capacity integer NOT NULL CHECK (capacity > 0),
  -- Whether new tenants are placed here.
  accepts boolean NOT NULL DEFAULT true,
  neon_project_id text,
  neon_branch_id text,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- A tenant has one placement in force (tenants.placement_id) and a second one during a move. The role and the schema of a
-- placement are named after its id: unique, and without meaning to a reader of the catalogue.
CREATE TABLE placements (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  shard_id text NOT NULL REFERENCES shards (id),
  state text NOT NULL DEFAULT 'preparing' CHECK (state IN ('preparing', 'ready', 'dropped')),
  -- Encrypted `user:password` of the tenant's own login role; NULL on shared tables.
  login text,
  -- The last migration of the tenant's own schema; NULL on shared tables.
  schema_version text,
  created_at timestamptz NOT NULL DEFAULT now(),
  ready_at timestamptz,
  dropped_at timestamptz
);
CREATE UNIQUE INDEX placements_live ON placements (tenant_id, shard_id) WHERE state <> 'dropped';
CREATE INDEX placements_by_shard ON placements (shard_id) WHERE state <> 'dropped';

ALTER TABLE tenants ADD COLUMN placement_id bigint REFERENCES placements (id);
-- The region that the tenant's contract requires; NULL: any.
ALTER TABLE tenants ADD COLUMN region text;

-- Every tenant so far lives on the first shared shard, whose address `npm run migrate` registers.
INSERT INTO shards (id, strategy, region, capacity)
SELECT 'shared-1', 'shared', 'default', 10000 WHERE EXISTS (SELECT FROM tenants);
-- allow work-under-lock: some milliseconds for the thousands of tenants that one control database holds
INSERT INTO placements (tenant_id, shard_id, state, ready_at) SELECT id, 'shared-1', 'ready', now() FROM tenants;
-- allow backfill: the same
UPDATE tenants t SET placement_id = p.id, version = version + 1 FROM placements p WHERE p.tenant_id = t.id;

GRANT SELECT, INSERT ON shards, placements TO tollgate_service;
GRANT UPDATE (host, database, owner_login, app_login, accepts, neon_project_id, neon_branch_id) ON shards TO tollgate_service;
GRANT UPDATE (state, login, schema_version, ready_at, dropped_at) ON placements TO tollgate_service;
