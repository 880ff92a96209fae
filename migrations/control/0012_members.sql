-- The people of each tenant, and the invitations that make more of them. A person signs in at an issuer, which names the person
-- by a subject. The rules are in src/identity/members/members.ts.

CREATE TABLE members (
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- 12 characters that Tollgate has made.
  id text NOT NULL,
  -- In lower case. NULL: the issuer has sent no address that counts.
  email text,
  name text,
  role text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'member', 'billing')),
  -- NULL until the first sign-in.
  issuer text,
  subject text,
  created_at timestamptz NOT NULL DEFAULT now(),
  last_sign_in_at timestamptz,
  -- A removed row keeps its identity, so that the identity is refused. A new invitation clears it.
  removed_at timestamptz,
  PRIMARY KEY (tenant_id, id),
  CHECK ((issuer IS NULL) = (subject IS NULL)),
  -- A tenant's own provider (0017_providers.sql) never signs a person in to another tenant.
  CONSTRAINT members_of_own_provider CHECK (
    issuer IS NULL OR NOT starts_with(issuer, 'provider:') OR starts_with(issuer, 'provider:' || tenant_id || ':'))
);
CREATE UNIQUE INDEX members_by_email ON members (tenant_id, email) WHERE removed_at IS NULL;
CREATE UNIQUE INDEX members_by_identity ON members (tenant_id, issuer, subject) WHERE removed_at IS NULL;
CREATE INDEX members_of_identity ON members (issuer, subject);
CREATE INDEX members_without_identity ON members (email) WHERE issuer IS NULL AND removed_at IS NULL;

CREATE TABLE invitations (
  id text PRIMARY KEY,
  tenant_id text NOT NULL REFERENCES tenants (id),
  -- In lower case.
  email text NOT NULL,
  role text NOT NULL CHECK (role IN ('owner', 'admin', 'developer', 'member', 'billing')),
  -- SHA-256 of the token, in hex. The token is in the link and kept nowhere.
  token_hash text NOT NULL UNIQUE,
  -- A member's id, `buyer` or `operator`.
  invited_by text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  expires_at timestamptz NOT NULL,
  accepted_at timestamptz,
  -- The id of the member that the acceptance made or changed.
  accepted_by text,
  revoked_at timestamptz
);
CREATE INDEX invitations_by_tenant ON invitations (tenant_id, created_at);
CREATE UNIQUE INDEX invitations_open ON invitations (tenant_id, email) WHERE accepted_at IS NULL AND revoked_at IS NULL;
CREATE INDEX invitations_open_by_email ON invitations (email) WHERE accepted_at IS NULL AND revoked_at IS NULL;

GRANT SELECT, INSERT ON members, invitations TO tollgate_service;
GRANT UPDATE (email, name, role, issuer, subject, last_sign_in_at, removed_at) ON members TO tollgate_service;
GRANT DELETE ON invitations TO tollgate_service;
GRANT UPDATE (accepted_at, accepted_by, revoked_at) ON invitations TO tollgate_service;
