-- The providers that tenants bring. Each signs people in to its own tenant and to no other. The rules are in
-- src/identity/providers/providers.ts.

CREATE TABLE providers (
  -- 12 characters that Tollgate has made. A provider whose people may be others than before gets a new one.
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  kind text NOT NULL CHECK (kind IN ('oidc', 'auth0', 'cognito', 'entra')),
  issuer text NOT NULL,
  -- As the provider's discovery document named it when the provider was saved.
  jwks_url text NOT NULL,
  client_id text NOT NULL,
  -- Encrypted under ENCRYPTION_KEYS. NULL: a public client, or a provider that was removed.
  client_secret text,
  subject_claim text NOT NULL,
  -- Whether the issuer's ID-JAG assertions get tokens.
  id_jag boolean NOT NULL,
  -- The organisation's name at the sign-in.
  slug text NOT NULL,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  removed_at timestamptz,
  CHECK (removed_at IS NULL OR client_secret IS NULL)
);
CREATE UNIQUE INDEX providers_live ON providers (tenant_id) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX providers_by_slug ON providers (slug) WHERE removed_at IS NULL;
CREATE INDEX providers_by_assertions ON providers (issuer) WHERE removed_at IS NULL AND id_jag;

-- The e-mail domains that a tenant claims. A TXT record in the DNS proves one. A proved domain has one tenant.
CREATE TABLE provider_domains (
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- In lower case.
  domain text NOT NULL,
  -- The value that the record must have.
  challenge text NOT NULL,
  created_at timestamptz NOT NULL,
  verified_at timestamptz,
  PRIMARY KEY (tenant_id, domain)
);
CREATE UNIQUE INDEX provider_domains_verified ON provider_domains (domain) WHERE verified_at IS NOT NULL;

-- The person's sign-ins before this instant do not count any more, because their provider was removed: neither do the grants
-- that rest on them.
ALTER TABLE members ADD COLUMN sign_ins_since timestamptz;

GRANT SELECT, INSERT, DELETE ON providers TO tollgate_service;
GRANT UPDATE (kind, issuer, jwks_url, client_id, client_secret, subject_claim, id_jag, slug, updated_at, removed_at) ON providers
  TO tollgate_service;
GRANT SELECT, INSERT, DELETE ON provider_domains TO tollgate_service;
GRANT UPDATE (verified_at) ON provider_domains TO tollgate_service;
GRANT UPDATE (sign_ins_since) ON members TO tollgate_service;
