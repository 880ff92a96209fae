-- Stripe events and plan changes.

-- The inbox: an event is stored before it is acknowledged, and applied afterwards. It holds ids only. Names and e-mail
-- addresses stay at Stripe.
CREATE TABLE webhook_inbox (
  event_id text PRIMARY KEY,
  type text NOT NULL,
  tenant_id text,
  -- What the event names. The tenant is looked up from these again when the operator retries the event.
  named_tenant text,
  customer_id text,
  object_id text,
  livemode boolean,
  received_at timestamptz NOT NULL DEFAULT now(),
  -- When the operator last made it wait again.
  retried_at timestamptz,
  applied_at timestamptz,
  outcome text,
  attempts integer NOT NULL DEFAULT 0,
  error text,
  -- When an operator decided that nothing is left to do.
  dismissed_at timestamptz,
  -- Whether it waits to be applied, or was set aside for the operator.
  is_open boolean NOT NULL GENERATED ALWAYS AS (
    dismissed_at IS NULL AND (applied_at IS NULL OR coalesce(outcome IN ('unknown_tenant', 'unknown_object', 'refused'), false))
  ) STORED
);
CREATE INDEX webhook_inbox_pending ON webhook_inbox (tenant_id, received_at) WHERE applied_at IS NULL;
CREATE INDEX webhook_inbox_open ON webhook_inbox (received_at, event_id) WHERE is_open;
CREATE INDEX webhook_inbox_by_arrival ON webhook_inbox (received_at, event_id);

-- A plan change takes effect after Stripe has confirmed all earlier usage. A row holds the whole state of a change, so that
-- any process can resume it.
CREATE TABLE plan_changes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  from_plan text NOT NULL,
  plan text NOT NULL,
  strategy text NOT NULL CHECK (strategy IN ('shared', 'schema', 'database')),
  limits jsonb NOT NULL,
  requested_by text NOT NULL CHECK (requested_by IN ('operator', 'tenant')),
  state text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'done', 'cancelled')),
  -- Attempts to change the subscription at Stripe. Each is recorded before it is made and has its own idempotency key.
  attempts integer NOT NULL DEFAULT 0,
  -- How long the tenant's calls were paused at the last attempt.
  pause_ms integer,
  -- The reason why it waits, in Tollgate's words: Stripe's messages may quote data.
  waits_for text,
  -- Why a cancelled change could not take effect. NULL: a person cancelled it.
  error text,
  requested_at timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);
CREATE UNIQUE INDEX plan_changes_waiting ON plan_changes (tenant_id) WHERE state = 'waiting';
CREATE INDEX plan_changes_by_tenant ON plan_changes (tenant_id, id);

GRANT SELECT, INSERT ON webhook_inbox, plan_changes TO tollgate_service;
GRANT UPDATE (tenant_id, retried_at, applied_at, outcome, attempts, error, dismissed_at), DELETE ON webhook_inbox TO tollgate_service;
GRANT UPDATE (state, attempts, pause_ms, waits_for, error, progressed_at, finished_at) ON plan_changes TO tollgate_service;
