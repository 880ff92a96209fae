-- Sessions of the operator's people who are signed in to pages. The cookie has the token; the row has its SHA-256, in hex.

CREATE TABLE operator_sessions (
  id_hash text PRIMARY KEY,
  operator_id text NOT NULL,
  name text NOT NULL,
  -- The role of the sign-in.
  role text NOT NULL CHECK (role IN ('viewer', 'support', 'admin')),
  -- oidc: at the operator's issuer. token: with the operator token.
  through text NOT NULL CHECK (through IN ('oidc', 'token')),
  -- What the session ends with: the issuer, or a digest of the operator token together with the session's token.
  bound_to text NOT NULL,
  created_at timestamptz NOT NULL,
  last_seen_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  -- The person has signed out, or an administrator has ended the session.
  ended_at timestamptz
);
CREATE INDEX operator_sessions_by_expiry ON operator_sessions (expires_at);
CREATE INDEX operator_sessions_ended ON operator_sessions (ended_at) WHERE ended_at IS NOT NULL;

GRANT SELECT, INSERT, DELETE ON operator_sessions TO tollgate_service;
GRANT UPDATE (last_seen_at, ended_at) ON operator_sessions TO tollgate_service;
