// The states of a customer's account and of its forms as people see them, from an empty account to an unpaid one. `npm run shots`
// takes pictures of them, and a test looks for what keeps people from using them.
//
// Invariant: each state is reached as in a deployment: by the operator's API, by Stripe's events, and by what people do in a browser.
import { createHash, randomUUID } from "node:crypto";
import type { Page } from "playwright-core";
import { DAY_MS, HOUR_MS } from "../src/core/time.ts";
import { postJson } from "./demo.ts";

export interface StateSystem {
  publicUrl: string;
  issuerUrl: string;
  stripeUrl: string;
  proxyUrl: string;
  operatorToken: string;
}

export interface Visits {
  system: StateSystem;
  /** A window without a session. */
  newPage: () => Promise<Page>;
  /** Looks at what the window shows. `name` begins with the state. */
  see: (page: Page, name: string) => Promise<void>;
  /** Makes a few calls with an API key, also such that are refused. */
  call: (apiKey: string) => Promise<void>;
}

/** A state that background work brings about takes seconds; on a busy machine more. */
const WITHIN_MS = 60_000;
/** Long enough to look at the set-up while it runs. */
const SLOW_STEP_MS = 2_500;

/** Pages of an account that have something to say when there is nothing yet. */
const emptyPages = ["", "/usage", "/calls", "/invoices", "/keys", "/members", "/agents", "/sessions", "/audit"];

/** Opens every state, one after the other. */
export async function visitStates(visits: Visits): Promise<void> {
  const { system, newPage, see } = visits;
  const windows = { ...visits, ...(await signedInWindows(visits)) };
  await refusedVisitors(windows);
  await oneAccount(windows);
  await orders(windows);
  await unpaid(windows);
  const stranger = await newPage();
  await signIn(stranger, system, await aPerson(system, []));
  for (const path of ["/sign-in", "/app"]) await at(stranger, system, path);
  await see(stranger, "no-organisation-app");
  await stranger.goto(await aClientsRequest(system));
  await see(stranger, "no-organisation-consent");
}

interface Windows extends Visits {
  operator: Page;
}

async function signedInWindows({ system, newPage, see }: Visits): Promise<{ operator: Page }> {
  const operator = await newPage();
  await at(operator, system, "/admin/sign-in");
  await submit(operator, { token: "wrong" });
  await see(operator, "refused-form-operator-sign-in");
  await submit(operator, { token: system.operatorToken });
  return { operator };
}

async function refusedVisitors({ system, newPage, see }: Windows): Promise<void> {
  const page = await newPage();
  await at(page, system, "/sign-up");
  await submit(page, { name: "", email: "nowhere" });
  await see(page, "refused-form-sign-up");
  for (const [path, name] of [
    ["/sign-up?plan=unknown", "error-400-unknown-plan"],
    ["/no-such-page", "error-404-page"],
    ["/oauth/authorize?client_id=unknown", "error-400-unknown-client"],
    ["/oauth/callback?error=access_denied&state=unknown", "sign-in-error-ended"],
    ["/admin/sign-in/callback?error=access_denied&state=unknown", "sign-in-error-operator-ended"],
    ["/invitation?token=unknown", "sign-in-error-invitation"],
  ] as const) {
    await at(page, system, path);
    await see(page, name);
  }
}

/** One account from its first minute to its end. */
async function oneAccount(windows: Windows): Promise<void> {
  const { system, newPage, see, call, operator } = windows;
  const name = "Gesellschaft für Schiffselektronik und Nebenbetriebe mbH";
  const { id } = (await operatorApi(system, "POST", "/tenants", { name, plan: "free" })) as { id: string };
  await until(system, id, ({ state }) => state === "active");
  const admin = `/admin/tenants/${id}`;
  const owner = await newPage();
  await signIn(owner, system, await aMember(system, id, "owner"));
  const look = async (window: Page, path: string, title: string): Promise<void> => {
    await at(window, system, path);
    await see(window, title);
  };
  for (const path of emptyPages) await look(owner, `/app/${id}${path}`, `empty-${wordOf(path)}`);
  await look(operator, admin, "empty-operator-tenant");
  await refusedForms(windows, owner, id);

  const { apiKey } = (await operatorApi(system, "POST", `/tenants/${id}/keys`, { name: "first" })) as {
    apiKey: string;
  };
  await operatorApi(system, "PATCH", `/tenants/${id}`, { limits: { unitsPerHour: 1, unitsPerMonth: 1 } });
  for (let round = 0; round < 2; round += 1) await call(apiKey);
  for (const path of ["", "/usage", "/calls", "/limit"])
    await look(owner, `/app/${id}${path}`, `over-limit-${wordOf(path)}`);
  await look(operator, admin, "over-limit-operator-tenant");

  const member = await newPage();
  await signIn(member, system, await aMember(system, id, "member"));
  await look(member, `/app/${id}`, "member-overview");
  await look(member, `/app/${id}/keys`, "error-403-member");
  await look(owner, `/app/${id}/keys/no-such-key`, "error-404-key");
  await look(owner, "/app/no-such-organisation", "error-404-organisation");

  await at(operator, system, `${admin}/impersonate`);
  await submit(operator, { reason: "The customer asks why the agent is refused (ticket 4711)" });
  await see(operator, "impersonating-overview");
  await look(operator, `/app/${id}/keys`, "impersonating-keys");
  await look(operator, `/app/${id}/members`, "impersonating-members");
  await submit(operator, {}, `/app/${id}/impersonation/end`);
  await see(operator, "impersonating-ended");

  const client = await aClientsRequest(system);
  await owner.goto(client);
  await see(owner, "consent");

  await operatorApi(system, "POST", `/tenants/${id}/suspend`, {});
  for (const path of ["", "/plan", "/keys", "/data"])
    await look(owner, `/app/${id}${path}`, `suspended-${wordOf(path)}`);
  await look(operator, admin, "suspended-operator-tenant");
  await owner.goto(await aClientsRequest(system));
  await see(owner, "suspended-consent");
  await operatorApi(system, "POST", `/tenants/${id}/resume`, {});

  await at(owner, system, `/app/${id}/data`);
  await submit(owner, { name });
  await see(owner, "leaving-data");
  for (const path of ["", "/plan", "/keys"]) await look(owner, `/app/${id}${path}`, `leaving-${wordOf(path)}`);
  await look(operator, admin, "leaving-operator-tenant");
}

/** Forms that come again with what was entered and the reason. The browser's own checks are the same as in these pages' tests. */
async function refusedForms({ system, see, operator }: Windows, owner: Page, id: string): Promise<void> {
  const forms: readonly [Page, string, Record<string, string>, string][] = [
    [owner, `/app/${id}/keys/new`, { name: "", unitsPerMonth: "many" }, "key"],
    [owner, `/app/${id}/members/invite`, { email: "nowhere" }, "invitation"],
    [owner, `/app/${id}/settings`, { name: "", email: "nowhere" }, "settings"],
    [owner, `/app/${id}/settings`, { colour: "blue", logoUrl: "nowhere" }, "branding"],
    [owner, `/app/${id}/provider`, { issuer: "nowhere", clientId: "" }, "provider"],
    [owner, `/app/${id}/data`, { name: "Another name" }, "closing"],
    [operator, `/admin/tenants/${id}/impersonate`, { reason: "" }, "operator-impersonate"],
    [operator, `/admin/tenants/${id}/configuration`, { unitsPerHour: "-5", callsInFlight: "many" }, "operator-limits"],
    [operator, `/admin/tenants/${id}/account`, { name: "", email: "nowhere" }, "operator-account"],
    [operator, `/admin/tenants/${id}/members/new`, { email: "nowhere" }, "operator-member"],
  ];
  for (const [page, path, fields, name] of forms) {
    await at(page, system, path);
    await submit(page, fields);
    await see(page, `refused-form-${name}`);
  }
  for (const [path, name] of [
    ["/admin/tenants/no-such-tenant", "error-404-operator"],
    ["/admin/audit?from=yesterday", "error-400-operator-audit"],
  ] as const) {
    await at(operator, system, path);
    await see(operator, name);
  }
}

/** An order before its payment, while the account is set up, and after. */
async function orders({ system, newPage, see }: Windows): Promise<void> {
  const order = (await postJson(`${system.publicUrl}/api/checkout`, {
    ...{ plan: "starter", name: "Newcomers & Sons", email: "buyer@newcomers.example" },
  })) as { tenantId: string; checkoutUrl: string; setupToken: string };
  const page = await newPage();
  // The page asks for its steps every two seconds. Here it stays as it was opened.
  await page.route("**/checkout/**", (route) =>
    route.request().headers()["hx-request"] === undefined ? route.continue() : route.fulfill({ status: 204 }),
  );
  await at(page, system, `/checkout/${order.tenantId}?token=${order.setupToken}`);
  await see(page, "order-awaiting-payment");
  await proxyFaults(system, [{ kind: "slow", ms: SLOW_STEP_MS, sql: "INTO provisioning_steps" }]);
  await (await fetch(order.checkoutUrl, { method: "POST", redirect: "manual" })).body?.cancel();
  await until(system, order.tenantId, ({ steps }) => steps.some(({ status }) => status === "done"));
  await page.reload();
  await see(page, "order-provisioning");
  await proxyFaults(system, []);
  await until(system, order.tenantId, ({ state }) => state === "active");
  await page.reload();
  await see(page, "order-ready");
  await submit(page, {}, `/checkout/${order.tenantId}/key`);
  await see(page, "order-first-key");
}

/** A customer whose payment fails at the end of the period: Stripe's clock is moved, as its events come. */
async function unpaid({ system, newPage, see, call, operator }: Windows): Promise<void> {
  const { tenantId, checkoutUrl } = (await operatorApi(system, "POST", "/checkouts", {
    ...{ plan: "pro", name: "Unpaid & Partners", email: "books@unpaid.example" },
  })) as { tenantId: string; checkoutUrl: string };
  await (await fetch(checkoutUrl, { method: "POST", redirect: "manual" })).body?.cancel();
  await until(system, tenantId, ({ state }) => state === "active");
  const { apiKey } = (await operatorApi(system, "POST", `/tenants/${tenantId}/keys`, { name: "first" })) as {
    apiKey: string;
  };
  await call(apiKey);
  const owner = await newPage();
  await signIn(owner, system, await aMember(system, tenantId, "owner"));
  await at(owner, system, `/app/${tenantId}/limit`);
  await submit(owner, { cap: "-1" });
  await see(owner, "refused-form-spend-cap");
  const tenant = (await operatorApi(system, "GET", `/tenants/${tenantId}`)) as { stripeCustomerId: string };
  await simulator(system, "/payments", {
    ...{ customers: { [tenant.stripeCustomerId]: "fail" }, retryDelaysMs: [50 * DAY_MS] },
  });
  for (const offsetMs of [32 * DAY_MS, 32 * DAY_MS + 3 * HOUR_MS]) await simulator(system, "/clock", { offsetMs });
  await until(system, tenantId, ({ state }) => state === "past_due");
  for (const path of ["", "/plan", "/invoices", "/keys"]) {
    await at(owner, system, `/app/${tenantId}${path}`);
    await see(owner, `past-due-${wordOf(path)}`);
  }
  for (const path of [`/admin/tenants/${tenantId}`, "/admin/tenants", "/admin"]) {
    await at(operator, system, path);
    await see(operator, `past-due-operator-${wordOf(path.replace(tenantId, "tenant"))}`);
  }
  await simulator(system, "/payments", {});
  await simulator(system, "/clock", { offsetMs: 0 });
}

/** The last word of a path, for the name of a state. */
const wordOf = (path: string): string => path.split("/").at(-1) || "overview";

async function at(page: Page, { publicUrl }: StateSystem, path: string): Promise<void> {
  await page.goto(publicUrl + path, { waitUntil: "load" });
}

/** Sends the form that has these fields, without the checks of the browser. `action`: the form's, where it has no fields. */
async function submit(page: Page, fields: Record<string, string>, action = ""): Promise<void> {
  const send = `(() => {
    const fields = ${JSON.stringify(fields)};
    const form = [...document.forms].find(
      (each) =>
        Object.keys(fields).every((name) => each.elements[name]) &&
        each.method === "post" && each.action.endsWith(${JSON.stringify(action)}) && !each.action.endsWith("sign-out"),
    );
    if (form === undefined) throw new Error("no form has " + Object.keys(fields).join() + ${JSON.stringify(action)});
    for (const [name, value] of Object.entries(fields)) form.elements[name].value = value;
    form.submit();
  })()`;
  await Promise.all([page.waitForEvent("load"), page.evaluate(send)]);
}

/** A person at the local provider, who belongs to these organisations. */
async function aPerson({ issuerUrl }: StateSystem, organisations: readonly string[], role?: string): Promise<string> {
  const sub = `wilhelmina-${role ?? "stranger"}-${randomUUID().slice(0, 8)}`;
  const response = await fetch(`${issuerUrl}/people/${sub}`, {
    method: "PUT",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      ...{ name: "Wilhelmina Featherstonehaugh-Cholmondeley", email: `${sub}@schiffselektronik.example` },
      ...{ organisations: organisations.map((id) => ({ id, name: id })), roles: role === undefined ? [] : [role] },
    }),
  });
  if (!response.ok) throw new Error(`the person was not made: ${response.status} ${await response.text()}`);
  return sub;
}

/** A person whom the operator has added to the tenant. Returns the subject, with which the person signs in. */
async function aMember(system: StateSystem, tenantId: string, role: string): Promise<string> {
  const sub = await aPerson(system, [tenantId], role);
  await operatorApi(system, "POST", `/tenants/${tenantId}/members`, {
    email: `${sub}@schiffselektronik.example`,
    role,
  });
  return sub;
}

async function signIn(page: Page, system: StateSystem, sub: string): Promise<void> {
  await at(page, system, "/sign-in?return=/app");
  await page.locator(`form:has(input[name="sub"][value="${sub}"]) button`).first().click();
  await page.waitForURL((url) => url.origin === system.publicUrl);
}

/** The address to which a new client sends a person. */
async function aClientsRequest({ publicUrl }: StateSystem): Promise<string> {
  const redirectUri = "http://127.0.0.1:45678/callback";
  const client = (await postJson(`${publicUrl}/oauth/register`, {
    ...{ client_name: "Claude", redirect_uris: [redirectUri], token_endpoint_auth_method: "none" },
  })) as { client_id: string };
  const query = new URLSearchParams({
    ...{ response_type: "code", client_id: client.client_id, redirect_uri: redirectUri, state: "s1" },
    ...{ code_challenge: createHash("sha256").update(randomUUID()).digest("base64url"), code_challenge_method: "S256" },
    ...{ scope: "tools:read tools:write", resource: `${publicUrl}/mcp` },
  });
  return `${publicUrl}/oauth/authorize?${query.toString()}`;
}

async function operatorApi(system: StateSystem, method: string, path: string, body?: unknown): Promise<unknown> {
  const response = await fetch(`${system.publicUrl}/admin/api${path}`, {
    method,
    headers: { authorization: `Bearer ${system.operatorToken}`, "content-type": "application/json" },
    ...(body !== undefined && { body: JSON.stringify(body) }),
  });
  if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${await response.text()}`);
  return response.json();
}

async function simulator({ stripeUrl }: StateSystem, path: string, body: unknown): Promise<void> {
  await postJson(`${stripeUrl}/_sim${path}`, body);
}

async function proxyFaults({ proxyUrl }: StateSystem, rules: readonly unknown[]): Promise<void> {
  await postJson(`${proxyUrl}/_proxy/faults`, rules);
}

interface Status {
  state: string;
  steps: readonly { status: string }[];
}

/** Waits until the account's status is as wanted. */
async function until(
  { publicUrl, operatorToken }: StateSystem,
  tenantId: string,
  isReached: (status: Status) => boolean,
): Promise<void> {
  const deadline = Date.now() + WITHIN_MS;
  for (;;) {
    const response = await fetch(`${publicUrl}/api/tenants/${tenantId}/status`, {
      headers: { authorization: `Bearer ${operatorToken}` },
    });
    const status = (await response.json()) as Status;
    if (response.ok && isReached(status)) return;
    if (Date.now() > deadline) throw new Error(`the account is still ${JSON.stringify(status).slice(0, 300)}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
