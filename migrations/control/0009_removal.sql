-- The end of a tenant. A removal is a row that is all it knows of itself, so that whoever goes on with it, after whatever
-- ended, finds where it stood. What stays of a removed tenant is its row without its name, and what it was billed for.

ALTER TABLE tenants
  -- Until when it may come back; NULL unless it leaves or has left.
  ADD COLUMN leaving_until timestamptz,
  -- Since when nothing is left of it but this row, its ledger and its reports.
  ADD COLUMN deleted_at timestamptz;

CREATE TABLE removals (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  asked_by text NOT NULL CHECK (asked_by IN ('operator', 'tenant', 'billing')),
  -- Where it goes back to if it comes back.
  from_state text NOT NULL,
  -- What is done next, in the order of src/lifecycle/removal.ts. grace: nothing, until tenants.leaving_until.
  step text NOT NULL DEFAULT 'usage' CHECK (step IN ('usage', 'invoice', 'monitor', 'grace', 'archive', 'verify',
    'subscriptions', 'places', 'files', 'object', 'erase', 'done', 'undone')),
  -- Where the step goes on.
  progress jsonb NOT NULL DEFAULT '{}',
  -- Grows with everything that is recorded: what comes late finds another number.
  version integer NOT NULL DEFAULT 0,
  -- It wants to come back, and Stripe may have a new subscription for it already: the grace does not end meanwhile.
  coming_back boolean NOT NULL DEFAULT false,
  -- Attempts at that, each with an idempotency key of its own.
  returns integer NOT NULL DEFAULT 0,
  -- What the archive of its usage holds, once it was read back.
  archive jsonb,
  -- In our words: what is not yet so, and what failed.
  waits_for text,
  error text,
  asked_at timestamptz NOT NULL DEFAULT now(),
  step_at timestamptz NOT NULL DEFAULT now(),
  progressed_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);
CREATE UNIQUE INDEX removals_live ON removals (tenant_id) WHERE step NOT IN ('done', 'undone');
CREATE INDEX removals_by_tenant ON removals (tenant_id, id);

GRANT SELECT, INSERT ON removals TO tollgate_service;
GRANT UPDATE (step, progress, version, coming_back, returns, archive, waits_for, error, step_at, progressed_at, finished_at)
  ON removals TO tollgate_service;

-- Gone is for ever: nobody is served under the id of a tenant whose rows were dropped.
CREATE FUNCTION gone_is_final() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NEW.state <> 'gone' THEN
    RAISE EXCEPTION 'tenant % is gone', OLD.id USING ERRCODE = 'TG004';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER gone_is_final BEFORE UPDATE ON tenants FOR EACH ROW WHEN (OLD.state = 'gone') EXECUTE FUNCTION gone_is_final();

-- The last step of a removal, in one transaction: what is personal is cleared wherever the control tables have it. A
-- function of the owner's, so that the service's login can clear a tenant at the end of its removal and no other. May be
-- repeated. Returns whether the tenant is erased.
CREATE FUNCTION erase_tenant(erased text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = public, pg_temp
AS $$
BEGIN
  PERFORM FROM tenants t WHERE t.id = erased AND t.state = 'gone' FOR UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE removals r SET step = 'done', progress = '{}', version = r.version + 1, waits_for = NULL, error = NULL,
    step_at = now(), progressed_at = now(), finished_at = now()
  WHERE r.tenant_id = erased AND r.step = 'erase';
  IF NOT FOUND THEN
    RETURN EXISTS (SELECT FROM tenants t WHERE t.id = erased AND t.deleted_at IS NOT NULL);
  END IF;
  DELETE FROM tenant_links l WHERE l.tenant_id = erased;
  -- What was asked of jobs names files, and what came of them quotes lines.
  DELETE FROM jobs j WHERE j.tenant_id = erased;
  -- The key of a row is the tenant's.
  UPDATE moves m SET cursor = NULL WHERE m.tenant_id = erased AND m.cursor IS NOT NULL;
  UPDATE api_keys k SET name = '', revoked_at = coalesce(k.revoked_at, now()) WHERE k.tenant_id = erased;
  UPDATE checkouts c SET name = '', email = NULL WHERE c.tenant_id = erased;
  UPDATE webhook_inbox w SET payload = '{}', error = NULL WHERE w.tenant_id = erased;
  UPDATE tenants t SET name = '', email = NULL, features = '{}', allowed_tools = NULL, placement_id = NULL,
    monitored_at = NULL, deleted_at = now(), version = t.version + 1
  WHERE t.id = erased;
  RETURN true;
END $$;
REVOKE ALL ON FUNCTION erase_tenant(text), gone_is_final() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_tenant(text) TO tollgate_service;
