-- The ledger: every charged call once. Around it, the state of each stream of rows on its way there.

CREATE TABLE ledger (
  call_id text PRIMARY KEY,
  tenant_id text NOT NULL,
  -- (tenant_id, object, epoch) names a stream; n is the row's position in it: 1, 2, 3 without a gap.
  object text NOT NULL,
  epoch text NOT NULL,
  n bigint NOT NULL,
  tool text NOT NULL,
  units integer NOT NULL CHECK (units > 0),
  -- When the call was admitted.
  at timestamptz NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  report_id text REFERENCES reports (id),
  carry_forward_id text REFERENCES carry_forwards (id),
  UNIQUE (tenant_id, object, epoch, n),
  CONSTRAINT ledger_frozen_once CHECK (report_id IS NULL OR carry_forward_id IS NULL)
);
CREATE INDEX ledger_unreported ON ledger (at) WHERE report_id IS NULL;
CREATE INDEX ledger_by_report ON ledger (report_id) WHERE report_id IS NOT NULL;
-- Lets an index-only scan read one tenant's calls of a period: to add up an invoice, and to admit calls without the object.
CREATE INDEX ledger_by_tenant ON ledger (tenant_id, at) INCLUDE (units, tool, report_id, carry_forward_id);

-- A call is in one report or in one carry-forward, and stays there.
CREATE FUNCTION stay_frozen() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a frozen ledger row keeps its report' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER ledger_stays_frozen BEFORE UPDATE OF report_id, carry_forward_id ON ledger FOR EACH ROW
  WHEN (OLD.report_id IS NOT NULL OR OLD.carry_forward_id IS NOT NULL) EXECUTE FUNCTION stay_frozen();

-- How far each stream has arrived without a gap.
CREATE TABLE usage_streams (
  tenant_id text NOT NULL,
  object text NOT NULL,
  epoch text NOT NULL,
  watermark bigint NOT NULL,
  highest bigint NOT NULL,
  gap_since timestamptz,
  PRIMARY KEY (tenant_id, object, epoch)
);
CREATE INDEX usage_streams_gaps ON usage_streams (gap_since) WHERE gap_since IS NOT NULL;

-- A call that arrived again with another payload. The ledger keeps the first payload; the operator sees the other here.
CREATE TABLE ledger_conflicts (
  call_id text NOT NULL,
  incoming jsonb NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT now(),
  -- When the operator acknowledged it. It no longer counts.
  acknowledged_at timestamptz,
  UNIQUE (call_id, incoming)
);

-- Calls that ran while the tenant's object could not be reached. Their charge is in the ledger, in the stream '~fallback'.
CREATE TABLE fallback_calls (
  call_id text PRIMARY KEY,
  tenant_id text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  -- When the object was known to count the call: it was told, or it had settled the call itself.
  counted_at timestamptz,
  -- The call's position in the object's own stream, when the object had settled it and its answer was lost. The call stays
  -- charged once, and the stream has no gap there.
  object text,
  epoch text,
  n bigint
);
CREATE INDEX fallback_calls_uncounted ON fallback_calls (tenant_id, received_at) WHERE counted_at IS NULL;
CREATE INDEX fallback_calls_placed ON fallback_calls (tenant_id, object, epoch, n) WHERE n IS NOT NULL;

-- The oldest row that an object has charged and the ledger did not acknowledge in time, as the object last reported it.
-- It no longer counts once the ledger's watermark has passed n.
CREATE TABLE late_outboxes (
  tenant_id text NOT NULL REFERENCES tenants (id),
  object text NOT NULL,
  epoch text NOT NULL,
  n bigint NOT NULL CHECK (n > 0),
  at timestamptz NOT NULL,
  noted_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, object, epoch)
);

-- Queue messages that could not be written to the ledger.
CREATE TABLE dead_letters (
  -- The queue message's id.
  id text PRIMARY KEY,
  -- As text: a body need not be JSON that PostgreSQL accepts.
  body text NOT NULL,
  why text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  -- When it was sent again. If it fails again it becomes another dead letter.
  replayed_at timestamptz,
  -- When an operator decided not to send it again.
  dismissed_at timestamptz
);
CREATE INDEX dead_letters_waiting ON dead_letters (received_at, id) WHERE replayed_at IS NULL AND dismissed_at IS NULL;

GRANT SELECT, INSERT ON ledger, usage_streams, ledger_conflicts, fallback_calls, late_outboxes, dead_letters TO tollgate_service;
GRANT UPDATE (report_id, carry_forward_id) ON ledger TO tollgate_service;
GRANT UPDATE (acknowledged_at) ON ledger_conflicts TO tollgate_service;
GRANT UPDATE ON usage_streams TO tollgate_service;
GRANT UPDATE (counted_at, object, epoch, n) ON fallback_calls TO tollgate_service;
GRANT UPDATE (n, at, noted_at) ON late_outboxes TO tollgate_service;
GRANT UPDATE (replayed_at, dismissed_at) ON dead_letters TO tollgate_service;
