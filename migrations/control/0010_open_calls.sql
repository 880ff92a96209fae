-- Calls that ran while their tenant's object could not be reached, and messages that nobody could take.

-- What such a call was charged is in the ledger, in a stream of its own ('~fallback'). Here is what became of it besides.
CREATE TABLE open_calls (
  call_id text PRIMARY KEY,
  tenant_id text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  -- When the tenant's object was known to count it: it was told, or it had settled the call itself.
  counted_at timestamptz,
  -- Where the object's own sequence has the same call: it had settled it, and its answer was lost. The call stays charged
  -- once, and the sequence has no gap there.
  object text,
  epoch text,
  n bigint
);
CREATE INDEX open_calls_uncounted ON open_calls (tenant_id, received_at) WHERE counted_at IS NULL;
CREATE INDEX open_calls_placed ON open_calls (tenant_id, object, epoch, n) WHERE n IS NOT NULL;

CREATE TABLE dead_letters (
  -- Of the queue's message.
  id text PRIMARY KEY,
  -- As text, since nobody promises that it is JSON that PostgreSQL takes.
  body text NOT NULL,
  why text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  -- Sent again; what is still at fault comes back as another letter.
  replayed_at timestamptz,
  -- Somebody has looked at it and decided that it is nothing to send again.
  dismissed_at timestamptz
);
CREATE INDEX dead_letters_waiting ON dead_letters (received_at, id) WHERE replayed_at IS NULL AND dismissed_at IS NULL;

GRANT SELECT, INSERT ON open_calls, dead_letters TO tollgate_service;
GRANT UPDATE (counted_at, object, epoch, n) ON open_calls TO tollgate_service;
GRANT UPDATE (replayed_at, dismissed_at) ON dead_letters TO tollgate_service;
