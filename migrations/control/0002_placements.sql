-- Where each tenant's rows are: databases ("shards") that hold tenants, and the placement of each tenant in one of them.
-- The dispatcher reads these rows, so that a tenant can be moved.

CREATE TABLE shards (
  id text PRIMARY KEY CHECK (id ~ '^[a-z0-9][a-z0-9_-]{0,59}$'),
  -- shared: tables with row security. schema: a schema and a login role for each tenant. database: one tenant only.
  strategy text NOT NULL CHECK (strategy IN ('shared', 'schema', 'database')),
  region text NOT NULL,
  -- Address, `host` or `host:port`, and the database's name there. NULL while the shard is being created.
  host text,
  database text,
  -- Encrypted `user:password` pairs. owner_login migrates and creates schemas and roles. app_login runs the tools of shared
  -- tables. analytics_login reads across tenants; NULL: `npm run migrate` has not given it a password yet.
  owner_login text,
  app_login text,
  analytics_login text,
  -- A replica is a copy of the whole server, with the same logins. `host` or `host:port`; NULL: analytics reads from the
  -- shard itself.
  replica_host text,
  capacity integer NOT NULL CHECK (capacity > 0),
  -- Whether new tenants are placed here.
  accepts boolean NOT NULL DEFAULT true,
  -- Shared databases: the files that the database has, as placements.schema_version has them. NULL elsewhere, and until
  -- its set-up or `npm run migrate` has recorded them.
  schema_version text,
  neon_project_id text,
  neon_branch_id text,
  -- While a shard is being created: until when one caller alone works on it.
  claimed_until timestamptz,
  -- When the log of changes was last shortened there.
  pruned_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now()
);

-- A tenant has one placement in force (tenants.placement_id), and a second one while it moves. The role and the schema of a
-- placement are named after its id, which is unique and tells a reader of the catalogue nothing about the tenant.
CREATE TABLE placements (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  shard_id text NOT NULL REFERENCES shards (id),
  state text NOT NULL DEFAULT 'preparing' CHECK (state IN ('preparing', 'ready', 'dropped')),
  -- Encrypted `user:password` of the tenant's own login role; NULL on shared tables.
  login text,
  -- The files that the tenant's own schema has, as `series/name` separated by spaces, in the bundle's order. NULL before the
  -- first file, and on shared tables.
  schema_version text,
  created_at timestamptz NOT NULL DEFAULT now(),
  ready_at timestamptz,
  dropped_at timestamptz
);
CREATE UNIQUE INDEX placements_live ON placements (tenant_id, shard_id) WHERE state <> 'dropped';
CREATE INDEX placements_by_shard ON placements (shard_id) WHERE state <> 'dropped';

ALTER TABLE tenants ADD COLUMN placement_id bigint REFERENCES placements (id);

GRANT SELECT, INSERT ON shards, placements TO tollgate_service;
-- Only a shard that never had a database is deleted.
GRANT DELETE ON shards TO tollgate_service;
GRANT UPDATE (host, database, owner_login, app_login, analytics_login, replica_host, accepts, schema_version,
  neon_project_id, neon_branch_id, claimed_until, pruned_at) ON shards TO tollgate_service;
GRANT UPDATE (state, login, schema_version, ready_at, dropped_at) ON placements TO tollgate_service;
