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

GRANT SELECT, INSERT, UPDATE ON heartbeats, alarms TO tollgate_service;
