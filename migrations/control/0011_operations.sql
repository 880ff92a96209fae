-- The state of the deployment: recurring events and alarms.

-- When each recurring event last happened: crons and answers of Stripe.
CREATE TABLE heartbeats (
  name text PRIMARY KEY,
  at timestamptz NOT NULL
);

-- The level of each indicator, and the level that the operator was last notified of. A notification that could not be sent
-- is sent by the next sweep.
CREATE TABLE alarms (
  name text PRIMARY KEY,
  level text NOT NULL CHECK (level IN ('ok', 'warning', 'critical')),
  value double precision,
  since timestamptz NOT NULL,
  notified_level text CHECK (notified_level IN ('ok', 'warning', 'critical')),
  notified_at timestamptz
);

-- Items of background work that failed: one bad item never stops the others. The operator acknowledges a row by deleting it.
CREATE TABLE failures (
  part text NOT NULL,
  item text NOT NULL,
  error text NOT NULL,
  times integer NOT NULL DEFAULT 1,
  first_at timestamptz NOT NULL DEFAULT now(),
  last_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (part, item)
);

GRANT SELECT, INSERT, UPDATE ON heartbeats, alarms TO tollgate_service;
GRANT SELECT, INSERT, UPDATE, DELETE ON failures TO tollgate_service;
