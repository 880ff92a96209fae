// Tests the adapter of Neon's management API against the stand-in over a real PostgreSQL.
import { mkdtemp, rm, stat } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { inspect } from "node:util";
import { Client } from "pg";
import { afterAll, beforeAll, expect, test } from "vitest";
import { listenOnLoopback } from "../../dev/loopback.ts";
import { limitRoles } from "../../dev/neon/api-databases.ts";
import { startNeonApi } from "../../dev/neon/api.ts";
import { removePostgresData, type RunningPostgres, startPostgres } from "../../dev/postgres/postgres.ts";
import { type OwnerConnection, NeonApiFailure, connectNeonApi } from "../../src/adapters/neon-api.ts";

const KEY = "napi_secret_of_the_test";
const PLACE = { name: "shard-1", regionId: "aws-eu-central-1", pgVersion: 18 };
/** Longer than all requests of one call take together. */
const OPERATION_MS = 100;

let folder: string;
let postgres: RunningPostgres;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "tollgate-neon-api-test-"));
  postgres = await startPostgres({ dataDir: join(folder, "postgres"), port: 0 });
}, 60_000);

afterAll(async () => {
  await postgres?.stop();
  await removePostgresData(join(folder, "postgres"));
  await rm(folder, { recursive: true, force: true });
}, 30_000);

let serial = 0;

/** A stand-in without projects and its adapter. `restart` stops the stand-in during its work and starts it again. */
async function aNeon(overrides: Partial<Parameters<typeof startNeonApi>[0]> = {}) {
  const stateFile = join(folder, `neon-${(serial += 1)}.json`);
  const start = () => {
    const { superuserUrl } = postgres;
    return startNeonApi({ port: 0, stateFile, superuserUrl, operationMs: OPERATION_MS, apiKey: KEY, ...overrides });
  };
  let server = await start();
  const neon = {
    stateFile,
    api: connectNeonApi({ apiKey: KEY, apiBase: server.url }),
    server: () => server,
    posts: () => server.requests().filter(({ method }) => method === "POST").length,
    restart: async () => {
      await server.close();
      server = await start();
      neon.api = connectNeonApi({ apiKey: KEY, apiBase: server.url });
    },
    /** Opens a project and waits until it has no operations left. */
    project: async (place = PLACE): Promise<string> => {
      const { projectId } = await neon.api.openProject(place);
      await eventually(() => neon.api.projectReady(projectId));
      return projectId;
    },
    [Symbol.asyncDispose]: () => server.close(),
  };
  return neon;
}

async function eventually(isSo: () => Promise<boolean>): Promise<void> {
  await expect.poll(isSo, { interval: 10 }).toBe(true);
}

async function failureOf(promise: Promise<unknown>): Promise<NeonApiFailure> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof NeonApiFailure)) throw new Error(`expected a NeonApiFailure, got ${inspect(error)}`);
  expect(error.code).toBe("placement_unavailable");
  return error;
}

type Login = Pick<OwnerConnection, "host" | "database" | "user" | "password">;

async function enter({ host, database, user, password }: Login) {
  const client = new Client({
    connectionString: `postgresql://${user}:${encodeURIComponent(password)}@${host}/${database}`,
  });
  client.on("error", () => undefined);
  await client.connect();
  return { query: (text: string) => client.query(text), [Symbol.asyncDispose]: () => client.end() };
}

async function run(login: Login, text: string) {
  await using client = await enter(login);
  return (await client.query(text)).rows as Record<string, unknown>[];
}

async function asSuperuser(text: string) {
  const { host, username, password } = new URL(postgres.superuserUrl);
  return await run({ host, database: "postgres", user: username, password }, text);
}

/** The projects' databases and roles that still exist in the cluster. */
async function leftOf(connection: OwnerConnection): Promise<number> {
  const rows = await asSuperuser(
    `SELECT datname FROM pg_database WHERE datname = '${connection.database}'
     UNION ALL SELECT rolname FROM pg_roles WHERE rolname = '${connection.user}'`,
  );
  return rows.length;
}

test("the owner of a project creates roles and tables in it, and no other login can connect", async () => {
  await using neon = await aNeon();
  const opened = await neon.api.openProject(PLACE);
  expect(opened).toMatchObject({ ready: false, duplicates: [] });
  await eventually(() => neon.api.projectReady(opened.projectId));
  const owner = await neon.api.ownerConnection(opened.projectId);
  expect(owner.host).toBe(new URL(postgres.superuserUrl).host);
  expect(owner.pooledHost).toBe(owner.host);
  expect(owner.database).toMatch(/^neon_/);

  const role = `${owner.user}_tenant`;
  await run(
    owner,
    `CREATE ROLE ${role} LOGIN PASSWORD 'p'; GRANT CONNECT ON DATABASE ${owner.database} TO ${role};
     CREATE SCHEMA own; GRANT USAGE ON SCHEMA own TO ${role}; CREATE TABLE own.note AS SELECT 1 AS n`,
  );
  expect(await run({ ...owner, user: role, password: "p" }, "SELECT current_user::text AS u")).toEqual([{ u: role }]);
  const [attributes] = await run(
    owner,
    `SELECT rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = current_user`,
  );
  expect(attributes).toEqual({
    rolsuper: false,
    rolcreatedb: false,
    rolcreaterole: true,
    rolreplication: false,
    rolbypassrls: false,
  });

  const other = await neon.api.ownerConnection(await neon.project({ ...PLACE, name: "shard-2" }));
  await expect(run({ ...other, database: owner.database }, "SELECT")).rejects.toMatchObject({ code: "42501" });
});

test("opening an existing project finds it on any page of the list", async () => {
  await using neon = await aNeon({ maxPerPage: 1 });
  const projectId = await neon.project();
  // The search also finds these projects, and Neon lists newer projects first.
  await neon.api.openProject({ ...PLACE, name: "shard-11" });
  await neon.api.openProject({ ...PLACE, name: "a-shard-1" });
  const posts = neon.posts();
  expect(await neon.api.openProject(PLACE)).toEqual({ projectId, ready: true, duplicates: [] });
  expect(neon.posts()).toBe(posts);
  const elsewhere = await failureOf(neon.api.openProject({ ...PLACE, regionId: "aws-us-east-2" }));
  expect(elsewhere).toMatchObject({ retryable: false, message: expect.stringContaining("aws-eu-central-1") });
});

test.each(["lose-after", "error-after"] as const)(
  "a retry finds the project whose creation was answered by %s",
  async (kind) => {
    await using neon = await aNeon();
    neon.server().setFaults([{ kind, method: "POST", times: 1 }]);
    expect((await failureOf(neon.api.openProject(PLACE))).retryable).toBe(true);
    const { projectId, duplicates } = await neon.api.openProject(PLACE);
    expect(duplicates).toEqual([]);
    expect(neon.posts()).toBe(1);
    await eventually(() => neon.api.projectReady(projectId));
  },
);

test("concurrent callers get the same project, and the error names the duplicate", async () => {
  await using neon = await aNeon();
  // Both callers read the list before either has created its project.
  neon.server().setFaults([
    { kind: "slow", method: "GET", ms: 200, times: 2 },
    { kind: "slow", method: "POST", ms: 500, times: 2 },
  ]);
  const both = await Promise.all([neon.api.openProject(PLACE), neon.api.openProject(PLACE)]);
  expect(neon.posts()).toBe(2);
  expect(both[0].projectId).toBe(both[1].projectId);
  const later = await neon.api.openProject(PLACE);
  expect(later.projectId).toBe(both[0].projectId);
  expect(later.duplicates).toHaveLength(1);
});

test("an incomplete list from Neon does not lead to a second project", async () => {
  await using neon = await aNeon();
  await neon.project();
  neon.server().setFaults([{ kind: "incomplete-list", path: "/projects", times: 1 }]);
  expect((await failureOf(neon.api.openProject(PLACE))).retryable).toBe(true);
  expect(neon.posts()).toBe(1);
});

test.each([
  ["error-before", "500"],
  ["rate-limit", "429"],
  ["locked", "423"],
] as const)("a request answered by %s can be retried", async (kind, status) => {
  await using neon = await aNeon();
  neon.server().setFaults([{ kind, method: "POST", times: 1 }]);
  const error = await failureOf(neon.api.openProject(PLACE));
  expect(error).toMatchObject({ retryable: true, message: expect.stringContaining(status) });
  expect(error.message).toContain("retryable");
  expect((await neon.api.openProject(PLACE)).duplicates).toEqual([]);
});

test("the adapter reports a locked project, a rate limit and a full account as different errors", async () => {
  await using neon = await aNeon({ requestsPerMinute: 9, maxProjects: 1, operationMs: 60_000 });
  const { projectId } = await neon.api.openProject(PLACE);
  expect(await failureOf(neon.api.closeProject(projectId))).toMatchObject({
    retryable: true,
    message: expect.stringContaining("423"),
  });
  const full = await failureOf(neon.api.openProject({ ...PLACE, name: "another" }));
  expect(full).toMatchObject({ retryable: false, message: expect.stringContaining("422 PROJECTS_LIMIT_EXCEEDED") });
  const slowed = await failureOf(neon.api.openProject(PLACE));
  expect(slowed).toMatchObject({ retryable: true, message: expect.stringContaining("429") });
});

test("the error names a failed operation, and its project can be removed and created again", async () => {
  await using neon = await aNeon();
  neon.server().setFaults([{ kind: "fail-operation", action: "create_timeline", times: 1 }]);
  const { projectId } = await neon.api.openProject(PLACE);
  const failed = async () =>
    await neon.api.projectReady(projectId).then(
      () => false,
      (error: unknown) => error instanceof NeonApiFailure && !error.retryable && /create_timeline/.test(error.message),
    );
  await eventually(failed);
  expect(await neon.api.openProject(PLACE)).toMatchObject({ projectId, ready: false });
  await neon.api.closeProject(projectId);
  expect(await neon.project()).not.toBe(projectId);
});

test("a second removal of a project succeeds, and nothing of the project is left", async () => {
  await using neon = await aNeon();
  const projectId = await neon.project();
  const owner = await neon.api.ownerConnection(projectId);
  await using visitor = await enter(owner);
  await visitor.query(`CREATE ROLE ${owner.user}_tenant LOGIN`);
  await neon.api.closeProject(projectId);
  await neon.api.closeProject(projectId);
  await eventually(async () => (await leftOf(owner)) === 0);
  await neon.api.closeProject("no-such-project-00000000");
  expect((await failureOf(neon.api.projectReady(projectId))).retryable).toBe(false);
  expect(await asSuperuser(`SELECT FROM pg_roles WHERE rolname LIKE '${owner.user}%'`)).toEqual([]);
});

test("a crash of the stand-in or of PostgreSQL loses no project and leaves no remains", async () => {
  const operationMs = 600;
  await using neon = await aNeon({ operationMs });
  const { projectId } = await neon.api.openProject(PLACE);
  const owner = await neon.api.ownerConnection(projectId);
  expect((await stat(neon.stateFile)).mode & 0o777).toBe(0o600);
  await neon.restart();
  expect(await neon.api.projectReady(projectId)).toBe(false);

  process.kill(postgres.pid, "SIGKILL");
  await postgres.exited;
  await sleep(operationMs);
  expect(await neon.api.projectReady(projectId)).toBe(false);
  postgres = await startPostgres({ dataDir: join(folder, "postgres"), port: postgres.port });
  await eventually(() => neon.api.projectReady(projectId));
  expect(await neon.api.ownerConnection(projectId)).toEqual(owner);

  // An idle stand-in still accepts new work.
  await neon.restart();
  const { branchId } = await neon.api.openBranch({ projectId, name: "later" });
  await eventually(() => neon.api.branchReady(projectId, branchId));
  await neon.api.closeProject(projectId);
  await neon.restart();
  await eventually(async () => (await leftOf(owner)) === 0);
});

test("a branch starts as a copy of its parent, changes independently, and its removal leaves no role", async () => {
  await using neon = await aNeon();
  const projectId = await neon.project();
  const parent = await neon.api.ownerConnection(projectId);
  const shared = `${parent.user}_a`;
  const open = { projectId, name: "restore-1", fromTimestamp: new Date() };
  let branchId: string;
  {
    await using visitor = await enter(parent);
    await visitor.query(
      `CREATE ROLE ${shared} LOGIN PASSWORD 'p'; GRANT CONNECT ON DATABASE ${parent.database} TO ${shared};
       CREATE TABLE note AS SELECT 1 AS n; GRANT SELECT ON note TO ${shared}`,
    );
    ({ branchId } = await neon.api.openBranch(open));
    expect(await neon.api.openBranch(open)).toEqual({ branchId, ready: false });
    await sleep(2 * OPERATION_MS);
    // PostgreSQL does not copy a database that has open connections.
    expect(await neon.api.branchReady(projectId, branchId)).toBe(false);
    expect(await neon.api.projectReady(projectId)).toBe(false);
  }
  await eventually(() => neon.api.branchReady(projectId, branchId));
  const branch = await neon.api.ownerConnection(projectId, branchId);
  expect(branch.database).not.toBe(parent.database);
  await run(branch, "INSERT INTO note VALUES (2)");
  const count = "SELECT count(*)::int AS n FROM note";
  expect(await run({ ...branch, user: shared, password: "p" }, count)).toEqual([{ n: 2 }]);
  expect(await run({ ...parent, user: shared, password: "p" }, count)).toEqual([{ n: 1 }]);

  const past = neon.api.openBranch({ ...open, name: "restore-2", fromTimestamp: new Date(Date.now() - 60_000) });
  expect(await failureOf(past)).toMatchObject({ retryable: false, message: expect.stringContaining("NOT_SIMULATED") });
  const own = `${parent.user}_b`;
  await run(branch, `CREATE ROLE ${own}; GRANT CONNECT ON DATABASE ${branch.database} TO ${own}`);
  await neon.api.closeBranch(projectId, branchId);
  await neon.api.closeBranch(projectId, branchId);
  await eventually(() => neon.api.projectReady(projectId));
  const left = await asSuperuser(
    `SELECT rolname FROM pg_roles WHERE rolname IN ('${shared}', '${own}')
     UNION ALL SELECT datname FROM pg_database WHERE datname = '${branch.database}'`,
  );
  expect(left).toEqual([{ rolname: shared }]);
});

test("a branch refuses more roles than Neon allows", async () => {
  await using neon = await aNeon({ maxRoles: 3 });
  const owner = await neon.api.ownerConnection(await neon.project());
  const addTenant = (name: string) =>
    run(
      owner,
      `CREATE ROLE ${owner.user}_${name}; GRANT CONNECT ON DATABASE ${owner.database} TO ${owner.user}_${name};
       CREATE SCHEMA ${name}`,
    );
  await addTenant("a");
  await addTenant("b");
  await expect(addTenant("c")).rejects.toMatchObject({ code: "54000", message: "too many roles" });
  expect(await run(owner, `SELECT FROM pg_roles WHERE rolname = '${owner.user}_c'`)).toEqual([]);
  await limitRoles(postgres.superuserUrl, owner.database, 4);
  await addTenant("c");
  await expect(addTenant("d")).rejects.toMatchObject({ code: "54000" });
});

test("the error says that Neon refused the key, and no error shows a secret", async () => {
  await using neon = await aNeon();
  const projectId = await neon.project();
  const { password } = await neon.api.ownerConnection(projectId);
  const wrongKey = connectNeonApi({ apiKey: "napi_wrong", apiBase: neon.server().url });
  // A truncated answer that contains a password.
  const cut = await listenOnLoopback(
    createServer((_request, response) => {
      response.writeHead(200, { "content-type": "application/json" }).end(`{"uri":"postgresql://o:${password}@h/d`);
    }),
    0,
  );
  const nobody = connectNeonApi({ apiKey: KEY, apiBase: "http://127.0.0.1:1/api/v2" });
  neon.server().setFaults([{ kind: "lose-after", path: "connection_uri", times: 1 }]);

  const errors = {
    wrongKey: await failureOf(wrongKey.openProject(PLACE)),
    noKey: await failureOf(connectNeonApi({ apiKey: "", apiBase: neon.server().url }).projectReady(projectId)),
    lost: await failureOf(neon.api.ownerConnection(projectId)),
    cut: await failureOf(connectNeonApi({ apiKey: KEY, apiBase: cut.url }).ownerConnection(projectId)),
    nobody: await failureOf(nobody.closeProject(projectId)),
  };
  await cut.close();
  expect(errors.wrongKey.message).toContain("NEON_API_KEY is not accepted (401)");
  expect(errors.noKey.message).toContain("NEON_API_KEY is not set");
  expect(Object.values(errors).map(({ retryable }) => retryable)).toEqual([false, false, true, true, true]);
  const shown = inspect(errors, { depth: Infinity, showHidden: true });
  for (const secret of [KEY, "napi_wrong", password, "postgresql://"]) expect(shown).not.toContain(secret);
});
