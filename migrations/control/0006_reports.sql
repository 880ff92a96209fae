-- Usage on its way to Stripe: reports for the meter, and carry-forwards for usage that a report cannot bring into its invoice.

-- A report is frozen once and never changes. Its minute belongs to no other report of the tenant, so that one read of
-- Stripe's summary of that minute proves whether Stripe has it.
CREATE TABLE reports (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- Start of the report's minute.
  slot timestamptz NOT NULL,
  -- The timestamp of its meter event: the start of the minute, or of the billing period if that begins within the minute.
  stamp timestamptz NOT NULL,
  -- The tenant's plan when the report was frozen. Stripe bills the report at the price of this plan.
  plan text NOT NULL,
  units bigint NOT NULL CHECK (units > 0),
  calls bigint NOT NULL,
  frozen_at timestamptz NOT NULL,
  attempts integer NOT NULL DEFAULT 0,
  first_attempt_at timestamptz,
  last_attempt_at timestamptz,
  -- When the report is due next. NULL: at once. While a reporter holds a claim on it: the end of that claim.
  next_at timestamptz,
  -- Since when only a summary of its minute can tell whether Stripe has it. Also set on a confirmed report that turned out
  -- to be missing at Stripe.
  doubted_at timestamptz,
  -- Since when summaries have shown nothing.
  absent_since timestamptz,
  confirmed_at timestamptz,
  -- accepted, duplicate, summary: Stripe has it. no_customer: there is no customer to bill. carried: a carry-forward bills it.
  answer text,
  -- An operator must decide. refused: Stripe refuses the report. mismatch: Stripe has other units in its minute (stripe_units).
  alarm text CHECK (alarm IN ('refused', 'mismatch')),
  stripe_units bigint,
  error text,
  UNIQUE (tenant_id, slot)
);
CREATE INDEX reports_unconfirmed ON reports (frozen_at) WHERE confirmed_at IS NULL;
CREATE INDEX reports_doubted ON reports (doubted_at) WHERE doubted_at IS NOT NULL;

-- Each period of each subscription of a tenant, as last read from Stripe. Stripe counts a meter event in every period of the
-- customer that contains its timestamp, so a report's timestamp must be in one of them only.
CREATE TABLE subscription_periods (
  subscription_id text NOT NULL,
  tenant_id text NOT NULL REFERENCES tenants (id),
  starts_at timestamptz NOT NULL,
  -- Exclusive.
  ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
  -- The subscription ended with this period. Otherwise its next period begins at the end of this one.
  ended boolean NOT NULL,
  -- Usage of a trial is on no invoice.
  trial boolean NOT NULL,
  -- The base price was paid with the period before, so both share the included units.
  shares_included boolean NOT NULL DEFAULT false,
  PRIMARY KEY (subscription_id, starts_at)
);
CREATE INDEX subscription_periods_by_tenant ON subscription_periods (tenant_id, starts_at);

-- A period whose usage no invoice takes from the meter any more: its invoice is final, or its subscription has ended within
-- it. Only its end changes: to the start of the tenant's next subscription, if that is earlier. Stripe's times are whole
-- seconds, so a period and the next one can seem to share a second.
CREATE TABLE billing_periods (
  -- The final invoice. For a period within which its subscription ended: `ended.`, the subscription's id, and the period's start.
  invoice_id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  starts_at timestamptz NOT NULL,
  -- The end of the period, exclusive.
  ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
  plan text NOT NULL,
  -- The plan's price for units in that period. NULL: units are not sold one by one, or the period is a trial.
  included_units bigint,
  unit_amount_cents numeric,
  -- The quantity of the invoice's metered lines. NULL: it has none, or is not known. Then the confirmed reports count.
  invoiced_units bigint,
  finalized_at timestamptz NOT NULL
);
CREATE INDEX billing_periods_by_tenant ON billing_periods (tenant_id, starts_at);

-- Usage that a meter event can no longer bring into its invoice. An item of a later invoice bills it.
CREATE TABLE carry_forwards (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- The first and the last call. All calls are in one billing period.
  from_at timestamptz NOT NULL,
  to_at timestamptz NOT NULL,
  units bigint NOT NULL CHECK (units > 0),
  calls bigint NOT NULL,
  -- Without calls of their own: included_once: units that Stripe included in a period that shares its included units with the
  -- period before. not_invoiced: units that reached the meter after the invoice of their period.
  reason text NOT NULL CHECK (reason IN ('invoice_final', 'too_old', 'no_minute', 'report_lost', 'included_once', 'not_invoiced')),
  -- The report that this carry-forward replaces. Its ledger rows keep the report's id.
  report_id text UNIQUE REFERENCES reports (id),
  frozen_at timestamptz NOT NULL,
  -- Set together and once, when the period's invoice is known. units_before: the period's units without these.
  invoice_id text REFERENCES billing_periods (invoice_id),
  units_before bigint,
  priced_at timestamptz,
  -- The idempotency key in use: its number, and since when.
  key_number integer NOT NULL DEFAULT 0,
  key_at timestamptz,
  next_at timestamptz,
  settled_at timestamptz,
  answer text CHECK (answer IN ('created', 'found', 'covered', 'no_customer', 'no_subscription')),
  invoice_item_id text,
  error text
);
CREATE INDEX carry_forwards_by_tenant ON carry_forwards (tenant_id, to_at);
CREATE INDEX carry_forwards_unsettled ON carry_forwards (frozen_at) WHERE settled_at IS NULL;

GRANT SELECT, INSERT ON reports, subscription_periods, billing_periods, carry_forwards TO tollgate_service;
GRANT UPDATE (ends_at, ended, shares_included) ON subscription_periods TO tollgate_service;
GRANT UPDATE (ends_at) ON billing_periods TO tollgate_service;
GRANT UPDATE (attempts, first_attempt_at, last_attempt_at, next_at, doubted_at, absent_since, confirmed_at, answer, alarm,
  stripe_units, error) ON reports TO tollgate_service;
GRANT UPDATE (invoice_id, units_before, priced_at, key_number, key_at, next_at, settled_at, answer, invoice_item_id, error)
  ON carry_forwards TO tollgate_service;
