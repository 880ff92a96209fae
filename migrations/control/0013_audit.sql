-- The audit log: who did what, in one chain for each tenant and one for the deployment. The hash of a row covers all of its
-- fields and the hash of the row before it, so that a later change, removal or insertion shows. The database gives each row
-- its place and its hash, under a lock of the chain: writers at the same time make no gap and no fork.
-- src/identity/audit/audit.ts computes the same hash.

-- The end of each chain. The chain '' is the deployment's own.
CREATE TABLE audit_chains (
  chain text PRIMARY KEY,
  -- The last row. The next one follows it.
  position bigint NOT NULL DEFAULT 0,
  hash text NOT NULL DEFAULT '',
  recorded_at timestamptz NOT NULL DEFAULT '-infinity',
  -- Refused requests of the minute that began then. A chain takes only some of them, so that no caller fills the log. The rest
  -- is counted in left_out.
  refused_since timestamptz NOT NULL DEFAULT '-infinity',
  refused integer NOT NULL DEFAULT 0,
  left_out bigint NOT NULL DEFAULT 0,
  -- The last row that was deleted after its retention. The first row that is left follows it.
  anchor_position bigint NOT NULL DEFAULT 0,
  anchor_hash text NOT NULL DEFAULT ''
);

CREATE TABLE audit_events (
  -- The order in lists. It may have gaps.
  seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  -- Names the event: the request's id, or a name of its own. An event that arrives again is stored once.
  id text NOT NULL UNIQUE,
  -- NULL: the deployment's chain.
  tenant_id text REFERENCES tenants (id),
  chain text NOT NULL GENERATED ALWAYS AS (coalesce(tenant_id, '')) STORED,
  position bigint NOT NULL,
  -- When it happened, and when it was stored here, in milliseconds.
  at timestamptz NOT NULL DEFAULT now(),
  recorded_at timestamptz NOT NULL,
  actor_kind text NOT NULL,
  actor_id text,
  actor_name text,
  -- The tenant in whose name an operator acted.
  on_behalf_of text,
  action text NOT NULL,
  target text,
  outcome text NOT NULL CHECK (outcome IN ('succeeded', 'refused', 'failed', 'unknown')),
  status integer,
  code text,
  request_id text,
  -- The source of the request: an IPv4 address, or the first half of an IPv6 address.
  address text,
  -- Names, numbers and switches. Never a secret, never the content of a request.
  detail jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(detail) = 'object'),
  previous_hash text NOT NULL,
  -- SHA-256 in hex.
  hash text NOT NULL,
  UNIQUE (chain, position)
);
CREATE INDEX audit_events_of_chain ON audit_events (chain, seq);
CREATE INDEX audit_events_by_age ON audit_events (recorded_at);
CREATE INDEX audit_events_by_request ON audit_events (request_id);
CREATE INDEX audit_events_by_action ON audit_events (action, recorded_at);

-- Requests that are about to act. The row goes when the event is stored. One that stays tells of an act whose outcome was lost.
CREATE TABLE audit_intents (
  id text PRIMARY KEY,
  tenant_id text,
  at timestamptz NOT NULL,
  actor_kind text NOT NULL,
  actor_id text,
  actor_name text,
  on_behalf_of text,
  action text NOT NULL,
  target text,
  request_id text,
  address text,
  detail jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_intents_by_age ON audit_intents (at);

-- How far each chain is verified. The sweep reads from the cursor to the end, and then from the start again.
CREATE TABLE audit_checks (
  chain text PRIMARY KEY,
  cursor_position bigint NOT NULL DEFAULT 0,
  cursor_hash text NOT NULL DEFAULT '',
  -- The furthest row that was ever found to be right. It must stay as it is.
  verified_position bigint NOT NULL DEFAULT 0,
  verified_hash text NOT NULL DEFAULT '',
  checked_at timestamptz NOT NULL DEFAULT '-infinity',
  -- When the chain was last read to its end.
  ended_at timestamptz,
  -- The first row that is wrong. NULL: none.
  broken_position bigint,
  broken_by text,
  broken_at timestamptz
);

-- A field with its length in bytes, so that no two lists of fields have the same text.
CREATE FUNCTION audit_field(value text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(octet_length(value)::text || ':' || value, '-') || ',';

-- The text that the hash of a row covers: all fields but `seq` and the hash itself.
CREATE FUNCTION audit_canonical(e audit_events) RETURNS text
LANGUAGE sql STABLE
SET search_path = public, pg_temp
AS $$
  SELECT 'tollgate-audit-1,' || audit_field(e.tenant_id) || audit_field(e.position::text) || audit_field(e.id)
    || audit_field(floor(extract(epoch FROM e.at) * 1000)::bigint::text)
    || audit_field(floor(extract(epoch FROM e.recorded_at) * 1000)::bigint::text)
    || audit_field(e.actor_kind) || audit_field(e.actor_id) || audit_field(e.actor_name) || audit_field(e.on_behalf_of)
    || audit_field(e.action) || audit_field(e.target) || audit_field(e.outcome) || audit_field(e.status::text)
    || audit_field(e.code) || audit_field(e.request_id) || audit_field(e.address)
    || audit_field((SELECT coalesce(string_agg(audit_field(d.key) || audit_field(jsonb_typeof(d.value)) || audit_field(d.value #>> '{}'), '' ORDER BY d.key COLLATE "C"), '')
                    FROM jsonb_each(e.detail) d))
    || audit_field(e.previous_hash)
$$;

-- Refused requests that a chain takes in a minute.
CREATE FUNCTION audit_refusals_a_minute() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 30;

-- Gives a new row its place. It runs as the owner: the Worker's login writes no place and no hash.
CREATE FUNCTION audit_append() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
  own text;
  last audit_chains;
BEGIN
  -- The order of a visitor is no tenant yet. Its target names it.
  IF NEW.tenant_id IS NOT NULL AND NOT EXISTS (SELECT FROM tenants t WHERE t.id = NEW.tenant_id) THEN
    NEW.tenant_id := NULL;
  END IF;
  own := coalesce(NEW.tenant_id, '');
  INSERT INTO audit_chains (chain) VALUES (own) ON CONFLICT (chain) DO NOTHING;
  SELECT * INTO STRICT last FROM audit_chains c WHERE c.chain = own FOR UPDATE;
  DELETE FROM audit_intents i WHERE i.id = NEW.id;
  -- Looked up under the lock: an event whose answer was lost arrives again.
  IF EXISTS (SELECT FROM audit_events e WHERE e.id = NEW.id) THEN
    RETURN NULL;
  END IF;
  IF NEW.outcome = 'refused' THEN
    IF last.refused_since < now() - interval '1 minute' THEN
      last.refused_since := now();
      last.refused := 0;
    END IF;
    IF last.refused >= audit_refusals_a_minute() THEN
      UPDATE audit_chains c SET left_out = c.left_out + 1 WHERE c.chain = own;
      RETURN NULL;
    END IF;
    last.refused := last.refused + 1;
  END IF;
  NEW.position := last.position + 1;
  NEW.previous_hash := last.hash;
  NEW.at := date_trunc('milliseconds', NEW.at);
  -- Never before the row in front of it, also when the clock was set back: the retention ends in the order of the chain.
  NEW.recorded_at := greatest(date_trunc('milliseconds', clock_timestamp()), last.recorded_at);
  NEW.hash := encode(sha256(convert_to(audit_canonical(NEW), 'UTF8')), 'hex');
  UPDATE audit_chains c SET position = NEW.position, hash = NEW.hash, recorded_at = NEW.recorded_at,
    refused_since = last.refused_since, refused = last.refused
  WHERE c.chain = own;
  RETURN NEW;
END $$;
CREATE TRIGGER audit_append BEFORE INSERT ON audit_events FOR EACH ROW EXECUTE FUNCTION audit_append();

-- How long rows are kept at least. The one place that says so.
CREATE FUNCTION audit_retention() RETURNS interval
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN interval '400 days';

-- Rows never change, not even by their owner. Only rows that are old enough and before their chain's anchor can be deleted.
CREATE FUNCTION audit_is_append_only() RETURNS trigger
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF OLD.recorded_at < now() - audit_retention()
      AND EXISTS (SELECT FROM audit_chains c WHERE c.chain = OLD.chain AND OLD.position <= c.anchor_position) THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION 'rows of the audit log never change' USING ERRCODE = 'TG005';
END $$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit_events FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_is_not_emptied BEFORE TRUNCATE ON audit_events FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();

-- Deletes rows whose retention has ended, from the start of each chain, and keeps the hash of the last one as the anchor. A
-- chain is due when its first row is a day too old, so that it is pruned once a day. Returns how many rows it has deleted.
CREATE FUNCTION prune_audit(most integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
DECLARE
  due text;
  last audit_events;
  gone integer;
  total integer := 0;
BEGIN
  FOR due IN
    SELECT DISTINCT o.chain
    FROM (SELECT e.chain FROM audit_events e WHERE e.recorded_at < now() - audit_retention() - interval '1 day'
          ORDER BY e.recorded_at LIMIT most) o
    ORDER BY o.chain
  LOOP
    EXIT WHEN total >= most;
    SELECT e.* INTO last
    FROM (SELECT f.* FROM audit_events f WHERE f.chain = due ORDER BY f.position LIMIT most) e
    WHERE e.recorded_at < now() - audit_retention()
    ORDER BY e.position DESC LIMIT 1;
    UPDATE audit_chains c SET anchor_position = last.position, anchor_hash = last.hash WHERE c.chain = due;
    DELETE FROM audit_events e WHERE e.chain = due AND e.position <= last.position;
    GET DIAGNOSTICS gone = ROW_COUNT;
    total := total + gone;
  END LOOP;
  RETURN total;
END $$;

-- Acts of Tollgate itself, stored in the transaction that does them.

-- Stripe has ended or stopped a tenant's subscription, or started it again. The operator's own suspensions are requests.
CREATE FUNCTION audit_tenant_state() RETURNS trigger
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
BEGIN
  INSERT INTO audit_events (id, tenant_id, actor_kind, action, target, outcome, detail)
  VALUES (gen_random_uuid()::text, NEW.id, 'stripe',
    CASE NEW.state WHEN 'suspended' THEN 'stripe.suspend' WHEN 'past_due' THEN 'stripe.past_due' ELSE 'stripe.resume' END,
    NEW.id, 'succeeded', jsonb_build_object('from', OLD.state, 'to', NEW.state));
  RETURN NULL;
END $$;
CREATE TRIGGER audit_tenant_state AFTER UPDATE OF state ON tenants FOR EACH ROW
WHEN (OLD.state <> NEW.state AND (
  (NEW.state = 'suspended' AND NEW.suspended_by IS DISTINCT FROM 'operator' AND NEW.suspended_by IS NOT NULL)
  OR NEW.state = 'past_due'
  OR (OLD.state = 'past_due' AND NEW.state IN ('trial', 'active'))
  OR (OLD.state = 'suspended' AND OLD.suspended_by IS DISTINCT FROM 'operator' AND OLD.suspended_by IS NOT NULL AND NEW.state IN ('trial', 'active', 'past_due'))))
EXECUTE FUNCTION audit_tenant_state();

-- A removal that no request has asked for, and the end of every removal.
CREATE FUNCTION audit_removal() RETURNS trigger
LANGUAGE plpgsql
SET search_path = public, pg_temp
AS $$
BEGIN
  INSERT INTO audit_events (id, tenant_id, actor_kind, action, target, outcome, detail)
  VALUES ('removal-' || NEW.id || '-' || NEW.step, NEW.tenant_id,
    CASE WHEN TG_OP = 'INSERT' THEN 'stripe' ELSE 'tollgate' END,
    CASE WHEN TG_OP = 'INSERT' THEN 'stripe.end' WHEN NEW.step = 'done' THEN 'removal.finish' ELSE 'removal.undo' END,
    NEW.tenant_id, 'succeeded', jsonb_build_object('askedBy', NEW.asked_by));
  RETURN NULL;
END $$;
CREATE TRIGGER audit_removal_begun AFTER INSERT ON removals FOR EACH ROW
WHEN (NEW.asked_by = 'billing') EXECUTE FUNCTION audit_removal();
CREATE TRIGGER audit_removal_ended AFTER UPDATE OF step ON removals FOR EACH ROW
WHEN (OLD.step <> NEW.step AND NEW.step IN ('done', 'undone')) EXECUTE FUNCTION audit_removal();

GRANT SELECT ON audit_events, audit_chains, audit_intents TO tollgate_service;
GRANT INSERT (id, tenant_id, at, actor_kind, actor_id, actor_name, on_behalf_of, action, target, outcome, status, code, request_id, address, detail)
  ON audit_events TO tollgate_service;
GRANT INSERT ON audit_intents TO tollgate_service;
GRANT SELECT, INSERT, UPDATE ON audit_checks TO tollgate_service;
REVOKE ALL ON FUNCTION audit_append(), audit_is_append_only(), prune_audit(integer), audit_tenant_state(), audit_removal() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION prune_audit(integer) TO tollgate_service;
