-- A tenant adds its invoice up: its calls of some days, summed by day, tool and report, without a look at any other row.
CREATE INDEX CONCURRENTLY ledger_by_tenant ON ledger (tenant_id, at) INCLUDE (units, tool, report_id);
