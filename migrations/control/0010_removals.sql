-- The end of a tenant. A row holds the whole state of a removal, so that any process can resume it. A removed tenant leaves
-- its row without the name, and the records of what it was billed.

CREATE TABLE removals (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  asked_by text NOT NULL CHECK (asked_by IN ('operator', 'tenant', 'billing')),
  -- The state that a reactivation returns to.
  from_state text NOT NULL,
  -- The next step, in the order of src/lifecycle/removal.ts. grace: wait until tenants.leaving_until.
  step text NOT NULL DEFAULT 'usage' CHECK (step IN ('usage', 'invoice', 'monitor', 'grace', 'archive', 'verify',
    'subscriptions', 'places', 'files', 'object', 'erase', 'done', 'undone')),
  -- Where the step resumes.
  progress jsonb NOT NULL DEFAULT '{}',
  -- Grows with every write. A late write finds another number.
  version integer NOT NULL DEFAULT 0,
  -- The tenant is being reactivated, and Stripe may already have a new subscription for it. The grace period does not end meanwhile.
  reactivating boolean NOT NULL DEFAULT false,
  -- Since when a person has waited for it. Tollgate gives up after a while, so that no later charge surprises the customer.
  reactivating_since timestamptz,
  -- Attempts to reactivate the tenant, each with its own idempotency key.
  reactivations integer NOT NULL DEFAULT 0,
  -- Until when the customer has paid the base price, or has a trial, although the subscription has ended. NULL: it has not.
  paid_until timestamptz,
  -- The content of the usage archive, once it was read back.
  archive jsonb,
  -- In Tollgate's words: the reason why it waits, and the last failure.
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
GRANT UPDATE (step, progress, version, reactivating, reactivating_since, reactivations, paid_until, archive, waits_for, error, step_at, progressed_at, finished_at)
  ON removals TO tollgate_service;

-- The state `gone` is final: a tenant whose rows were dropped is never served again under its id.
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

-- The last step of a removal: clears all personal data from the control tables in one transaction. It runs as the owner, so
-- that the service's login can clear only a tenant at the end of its removal. Repeatable. Returns whether the tenant
-- is erased.
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
  DELETE FROM invitations i WHERE i.tenant_id = erased;
  DELETE FROM members m WHERE m.tenant_id = erased;
  DELETE FROM alerts a WHERE a.tenant_id = erased;
  DELETE FROM webhook_secrets w WHERE w.tenant_id = erased;
  DELETE FROM providers p WHERE p.tenant_id = erased;
  DELETE FROM provider_domains d WHERE d.tenant_id = erased;
  -- Requests of jobs name files, and results quote lines.
  DELETE FROM jobs j WHERE j.tenant_id = erased;
  -- Callers may be people.
  DELETE FROM metrics_hourly h WHERE h.tenant_id = erased;
  -- The cursor holds the key of a tenant's row.
  UPDATE moves m SET cursor = NULL WHERE m.tenant_id = erased AND m.cursor IS NOT NULL;
  UPDATE api_keys k SET name = '', revoked_at = coalesce(k.revoked_at, now()) WHERE k.tenant_id = erased;
  UPDATE checkouts c SET name = '', email = NULL WHERE c.tenant_id = erased;
  UPDATE webhook_inbox w SET customer_id = NULL, object_id = NULL, error = NULL WHERE w.tenant_id = erased;
  UPDATE tenants t SET name = '', email = NULL, features = '{}', settings = '{}', allowed_tools = NULL, placement_id = NULL,
    monitored_at = NULL, deleted_at = now(), version = t.version + 1
  WHERE t.id = erased;
  RETURN true;
END $$;
REVOKE ALL ON FUNCTION erase_tenant(text), gone_is_final() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION erase_tenant(text) TO tollgate_service;
