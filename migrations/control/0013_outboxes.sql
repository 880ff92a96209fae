-- The first row that a tenant's object had charged and the ledger had not acknowledged in time, as the object last said. It
-- is over when the ledger's watermark has passed it; nobody need take it back.
CREATE TABLE late_outboxes (
  tenant_id text NOT NULL REFERENCES tenants (id),
  object text NOT NULL,
  epoch text NOT NULL,
  n bigint NOT NULL CHECK (n > 0),
  at timestamptz NOT NULL,
  noted_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (tenant_id, object, epoch)
);

GRANT SELECT, INSERT ON late_outboxes TO tollgate_service;
GRANT UPDATE (n, at, noted_at) ON late_outboxes TO tollgate_service;
