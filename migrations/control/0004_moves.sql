-- Moves of live tenants from one placement to another. A row is all that a move knows of itself, so that whoever goes on
-- with it, after whatever ended, finds where it stood.

CREATE TABLE moves (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- preparing: the new place is made. copying: rows are copied while the tenant writes. moved: the new place is in force,
  -- the old copy kept. returning: the tenant goes back. confirmed: the old copy is gone. undone: the new one is.
  state text NOT NULL DEFAULT 'preparing'
    CHECK (state IN ('preparing', 'copying', 'moved', 'returning', 'confirmed', 'undone')),
  strategy text NOT NULL CHECK (strategy IN ('shared', 'schema', 'database')),
  -- A shard that was asked for; NULL: any.
  shard_id text REFERENCES shards (id),
  from_placement bigint NOT NULL REFERENCES placements (id),
  to_placement bigint REFERENCES placements (id),
  -- How far the first copy is: the table and the last key of it; NULL: not begun, or complete (see `mark`).
  cursor jsonb,
  copied boolean NOT NULL DEFAULT false,
  -- Changes of transactions from this one on must still be copied.
  mark text,
  rows_copied bigint NOT NULL DEFAULT 0,
  rounds integer NOT NULL DEFAULT 0,
  -- Raised by every attempt at the change-over and by whoever breaks one off: one that comes late finds another number.
  attempt integer NOT NULL DEFAULT 0,
  -- For how long the tenant's statements waited at the change-over.
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
