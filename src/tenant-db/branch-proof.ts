// The proof, for /health, that no tenant's role in a database of own schemas reaches outside of its schema: the owner looks
// at all of them at once in the catalogue. Each tenant's object proves its own login besides (isolation.ts).
import type { IsolationProof } from "./isolation.ts";
import { connectNeon } from "../adapters/neon.ts";

const ofTheHost = `n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast')`;

const faults = `
  WITH own AS (SELECT r.* FROM pg_roles r JOIN tollgate.tenants t ON t.role = r.rolname),
  granted AS (
    SELECT n.nspname, c.relname AS name, a.grantee FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      CROSS JOIN LATERAL aclexplode(c.relacl) AS a WHERE NOT ${ofTheHost}
    UNION ALL
    SELECT n.nspname, c.relname || '.' || t.attname, a.grantee FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace CROSS JOIN LATERAL aclexplode(t.attacl) AS a WHERE NOT ${ofTheHost}
    UNION ALL
    SELECT n.nspname, 'schema', a.grantee FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
      WHERE NOT ${ofTheHost} AND n.nspname <> 'tollgate')
  SELECT 'login_powers' AS "check", rolname::text AS detail FROM own
    WHERE rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication
  UNION ALL
  SELECT 'login_memberships', own.rolname FROM pg_auth_members m JOIN own ON own.oid = m.member
  UNION ALL
  SELECT 'login_owns_nothing', own.rolname FROM pg_shdepend d JOIN own ON own.oid = d.refobjid
    WHERE d.refclassid = 'pg_authid'::regclass AND d.deptype = 'o' AND d.classid <> 'pg_largeobject'::regclass
  UNION ALL
  SELECT 'rights_of_others', own.rolname || ' on ' || g.nspname || '.' || g.name FROM granted g JOIN own ON own.oid = g.grantee
    WHERE g.nspname <> own.rolname
  UNION ALL
  SELECT 'rights_of_everybody', g.nspname || '.' || g.name FROM granted g WHERE g.grantee = 0`;

/** Proves it of all tenants' roles in one database, in one round trip. Throws `AppError` when it cannot be asked. */
export async function proveBranch(ownerUrl: string, fetchEndpoint: string): Promise<IsolationProof> {
  const rows = await connectNeon(ownerUrl, fetchEndpoint).query(faults);
  const failures = rows.map((row) => ({ check: String(row["check"]), detail: String(row["detail"]) }));
  return failures.length === 0 ? { proven: true, leftOpen: [] } : { proven: false, failures };
}
