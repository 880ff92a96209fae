-- What becomes of a report when Stripe does not answer, of usage that comes when its invoice is already final, and of the
-- daily comparison with Stripe.

-- Which time an invoice of Stripe's has billed: written once when the invoice is final, never changed. Usage in such a
-- period that is not in Stripe by then will be in no invoice.
CREATE TABLE billing_periods (
  invoice_id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  starts_at timestamptz NOT NULL,
  ends_at timestamptz NOT NULL CHECK (ends_at > starts_at),
  plan text NOT NULL,
  -- What the plan's units cost in that period. NULL: units are not sold one by one.
  included_units bigint,
  unit_amount_cents numeric,
  -- The quantity of the invoice's metered lines. NULL: it has none.
  invoiced_units bigint,
  finalized_at timestamptz NOT NULL
);
CREATE INDEX billing_periods_by_tenant ON billing_periods (tenant_id, starts_at);

-- Usage that no meter event can bring into an invoice any more: billed as an item of a later one.
CREATE TABLE carry_forwards (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- Of the calls: the first and the last. All lie in one billing period.
  from_at timestamptz NOT NULL,
  to_at timestamptz NOT NULL,
  units bigint NOT NULL CHECK (units > 0),
  calls bigint NOT NULL,
  reason text NOT NULL CHECK (reason IN ('invoice_final', 'too_old', 'no_minute', 'report_lost')),
  -- The report in whose place it came; its rows in the ledger keep that report's name.
  report_id text UNIQUE REFERENCES reports (id),
  sealed_at timestamptz NOT NULL,
  -- Set together and once, when the invoice of its period is known: what the period had without these units.
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
CREATE INDEX carry_forwards_unsettled ON carry_forwards (sealed_at) WHERE settled_at IS NULL;

-- A call is in a report or in a carry-forward, in one of them, and stays there.
ALTER TABLE ledger ADD COLUMN carry_forward_id text REFERENCES carry_forwards (id);
ALTER TABLE ledger ADD CONSTRAINT ledger_sealed_once CHECK (report_id IS NULL OR carry_forward_id IS NULL) NOT VALID;
CREATE FUNCTION stay_sealed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a sealed row stays where it is' USING ERRCODE = 'check_violation';
END $$;
CREATE TRIGGER ledger_stays_sealed BEFORE UPDATE OF report_id, carry_forward_id ON ledger FOR EACH ROW
  WHEN (OLD.report_id IS NOT NULL OR OLD.carry_forward_id IS NOT NULL) EXECUTE FUNCTION stay_sealed();

-- answer: accepted, duplicate, summary (Stripe has it) · no_customer (nobody to tell) · carried (billed another way).
ALTER TABLE reports
  -- When it is looked at next; NULL: at once. While somebody works on it, when that claim ends.
  ADD COLUMN next_at timestamptz,
  -- Since when only a summary of its minute can tell whether Stripe has it. Also set on a confirmed report that Stripe
  -- turned out not to have.
  ADD COLUMN doubted_at timestamptz,
  -- Since when summaries have shown nothing.
  ADD COLUMN absent_since timestamptz,
  -- Somebody must look: Stripe refuses it, or has something else in its minute, which is in stripe_units.
  ADD COLUMN alarm text,
  ADD COLUMN stripe_units bigint;
ALTER TABLE reports ADD CONSTRAINT reports_alarm CHECK (alarm IN ('refused', 'mismatch')) NOT VALID;
-- allow create-index: only the reporter writes reports, every five minutes, and repeats what was turned away
CREATE INDEX reports_doubted ON reports (doubted_at) WHERE doubted_at IS NOT NULL;

-- One comparison of the ledger with Stripe a day, by tenant, resumed by whichever run of the cron comes next.
CREATE TABLE reconciliations (
  -- The UTC day before which usage is compared.
  day date PRIMARY KEY,
  started_at timestamptz NOT NULL,
  -- The last tenant that is done, in the order of ids.
  done_until text COLLATE "C" NOT NULL DEFAULT '',
  claimed_until timestamptz,
  tenants integer NOT NULL DEFAULT 0,
  requests integer NOT NULL DEFAULT 0,
  unread_tenants integer NOT NULL DEFAULT 0,
  finished_at timestamptz
);

-- Where Stripe has other units than our reports say. Closed by a later comparison that finds both equal, never by us.
CREATE TABLE drifts (
  tenant_id text NOT NULL REFERENCES tenants (id),
  starts_at timestamptz NOT NULL,
  -- One, unless there were too many differences to look into each.
  minutes integer NOT NULL,
  kind text NOT NULL CHECK (kind IN ('missing', 'less', 'more', 'unknown', 'unexplored')),
  report_id text REFERENCES reports (id),
  reported_units bigint NOT NULL,
  stripe_units bigint NOT NULL,
  found_at timestamptz NOT NULL,
  seen_at timestamptz NOT NULL,
  closed_at timestamptz,
  PRIMARY KEY (tenant_id, starts_at, minutes)
);
CREATE INDEX drifts_open ON drifts (tenant_id, starts_at) WHERE closed_at IS NULL;

GRANT SELECT, INSERT ON billing_periods, carry_forwards, reconciliations, drifts TO tollgate_service;
GRANT UPDATE (carry_forward_id) ON ledger TO tollgate_service;
GRANT UPDATE (next_at, doubted_at, absent_since, alarm, stripe_units) ON reports TO tollgate_service;
GRANT UPDATE (invoice_id, units_before, priced_at, key_number, key_at, next_at, settled_at, answer, invoice_item_id, error)
  ON carry_forwards TO tollgate_service;
GRANT UPDATE (done_until, claimed_until, tenants, requests, unread_tenants, finished_at) ON reconciliations TO tollgate_service;
GRANT UPDATE (kind, report_id, reported_units, stripe_units, seen_at, closed_at) ON drifts TO tollgate_service;
