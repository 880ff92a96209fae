-- What the operator was last told of each figure of metering and billing, so that a change is told once and what could
-- not be told is told later.
CREATE TABLE alarms (
  name text PRIMARY KEY,
  level text NOT NULL CHECK (level IN ('ok', 'warning', 'critical')),
  value double precision,
  since timestamptz NOT NULL,
  told_level text CHECK (told_level IN ('ok', 'warning', 'critical')),
  told_at timestamptz
);

GRANT SELECT, INSERT, UPDATE ON alarms TO tollgate_service;
