-- A tenant's calls of some time, without a look at any other row: to add an invoice up by day, tool and report, and to tell
-- a Worker that admits calls without the tenant's object what was used lately.
CREATE INDEX CONCURRENTLY ledger_by_tenant ON ledger (tenant_id, at) INCLUDE (units, tool, report_id, carry_forward_id);
