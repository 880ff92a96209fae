-- Where analytics reads. A replica of a shard has an address of its own and the same logins, because it is a copy of the
-- whole server. What spans tenants reads with a login of its own (migrations/shared/0007_analytics.sql).

ALTER TABLE shards
  -- `host` or `host:port`; NULL: there is none, and analytics reads from the shard itself.
  ADD COLUMN replica_host text,
  -- Encrypted `user:password`, as the other two; NULL: `npm run migrate` has not given it a password yet.
  ADD COLUMN analytics_login text;

GRANT UPDATE (replica_host, analytics_login) ON shards TO tollgate_service;
