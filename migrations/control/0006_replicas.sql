-- Analytics. A shard's replica is a copy of the whole server: it has its own address and the same logins. Questions about all
-- tenants use a login of their own (migrations/shared).

ALTER TABLE shards
  -- `host` or `host:port`; NULL: no replica, so that analytics reads from the shard itself.
  ADD COLUMN replica_host text,
  -- Encrypted `user:password`, like the other two; NULL: `npm run migrate` has not set a password yet.
  ADD COLUMN analytics_login text;

GRANT UPDATE (replica_host, analytics_login) ON shards TO tollgate_service;
