-- Sessions of people who are signed in to pages. The cookie has the token; the row has its SHA-256, in hex.

CREATE TABLE sessions (
  id_hash text PRIMARY KEY,
  -- The person: a subject at a provider. It may be a member of several tenants, or of none.
  issuer text NOT NULL,
  subject text NOT NULL,
  -- As the provider named the person at the sign-in.
  name text,
  email text,
  created_at timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  -- The person has signed out, or an administrator has ended the session.
  ended_at timestamptz
);
CREATE INDEX sessions_by_identity ON sessions (issuer, subject) WHERE ended_at IS NULL;
CREATE INDEX sessions_by_expiry ON sessions (expires_at);
CREATE INDEX sessions_ended ON sessions (ended_at) WHERE ended_at IS NOT NULL;

GRANT SELECT, INSERT, DELETE ON sessions TO tollgate_service;
GRANT UPDATE (last_seen_at, ended_at) ON sessions TO tollgate_service;
