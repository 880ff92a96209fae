-- Moves of live tenants from one placement to another. A row holds the whole state of a move, so that any later step can
-- resume it.

CREATE TABLE moves (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- preparing: the new placement is being made. copying: rows are copied while the tenant writes. moved: the new placement is
  -- in force, the old copy still exists. returning: the tenant moves back. confirmed: the old copy is deleted. undone: the new
  -- copy is deleted.
  state text NOT NULL DEFAULT 'preparing'
    CHECK (state IN ('preparing', 'copying', 'moved', 'returning', 'confirmed', 'undone')),
  strategy text NOT NULL CHECK (strategy IN ('shared', 'schema', 'database')),
  -- The requested shard; NULL: any.
  shard_id text REFERENCES shards (id),
  from_placement bigint NOT NULL REFERENCES placements (id),
  to_placement bigint REFERENCES placements (id),
  -- Progress of the first copy: the table and its last key; NULL: not begun, or complete (see `mark`).
  cursor jsonb,
  copied boolean NOT NULL DEFAULT false,
  -- Changes of transactions from this one on are not copied yet.
  mark text,
  rows_copied bigint NOT NULL DEFAULT 0,
  rounds integer NOT NULL DEFAULT 0,
  -- Grows with every attempt at the switch-over and every cancellation, so that a late attempt finds another number.
  attempt integer NOT NULL DEFAULT 0,
  -- How long the tenant's statements waited at the switch-over.
  pause_ms integer,
  error text,
  started_at timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  moved_at timestamptz,
  finished_at timestamptz
);
CREATE UNIQUE INDEX moves_live ON moves (tenant_id) WHERE state NOT IN ('confirmed', 'undone');

GRANT SELECT, INSERT ON moves TO tollgate_service;
GRANT UPDATE (state, to_placement, cursor, copied, mark, rows_copied, rounds, attempt, pause_ms, error, progressed_at,
  moved_at, finished_at) ON moves TO tollgate_service;
