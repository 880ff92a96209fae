// Measures what each page costs: CPU time of workerd until the page is answered, round trips to databases, and bytes. It signs in as
// an owner and as the operator, opens the first pages, and follows their links to pages of the same kind.
import { join } from "node:path";
import { freePort } from "../cli/ports.ts";
import { config } from "../src/core/app-config.ts";
import { bundle } from "../dev/bundle.ts";
import { addOwners, runDemonstration } from "../dev/demo.ts";
import { demonstrationPeople } from "../dev/issuer/people.ts";
import { startSystem } from "../dev/system.ts";
import { cpuMs, descendantsNamed } from "./cpu.ts";
import { percentile, print } from "./tenants.ts";

/** The bounds of a page. */
const CPU_BOUND_MS = 50;
const ROUND_TRIPS_BOUND = 3;
/** The first page of a visitor, without images. */
const BYTES_BOUND = 50_000;
/** CPU time is counted in steps of 10 ms, so each page is opened many times. */
const VISITS = 50;
const WARM_UP = 5;
/** Links with an id, such as the pages of single calls, are all the same page. */
const MAX_PAGES = 60;
const REDIRECTS = 10;

/** A browser without script: it keeps cookies and follows redirects. */
class Visitor {
  readonly #cookies = new Map<string, string>();

  async visit(url: string, form?: Record<string, string>): Promise<{ url: string; html: string; status: number }> {
    let [at, fields] = [url, form];
    for (let redirects = 0; redirects < REDIRECTS; redirects += 1) {
      const { origin } = new URL(at);
      const own = [...this.#cookies].flatMap(([key, value]) => {
        const [of = "", name = ""] = key.split(" ");
        return of === origin ? [`${name}=${value}`] : [];
      });
      const response = await fetch(at, {
        redirect: "manual",
        headers: { cookie: own.join("; "), origin },
        ...(fields && { method: "POST", body: new URLSearchParams(fields) }),
      });
      for (const cookie of response.headers.getSetCookie()) {
        const [, name = "", value = ""] = /^([^=]+)=([^;]*)/.exec(cookie) ?? [];
        this.#cookies.set(`${origin} ${name}`, value);
      }
      const html = await response.text();
      const to = response.headers.get("location") ?? /http-equiv="refresh" content="0;url=([^"]*)"/.exec(html)?.[1];
      if (to === undefined) return { url: at, html, status: response.status };
      [at, fields] = [new URL(to.replaceAll("&amp;", "&"), at).href, undefined];
    }
    throw new Error(`${url} redirects without an end`);
  }

  /** Signs in at the local issuer's page as this person. */
  async signInAs(url: string, sub: string): Promise<string> {
    const page = await this.visit(url);
    const form = page.html.split("<form").find((each) => each.includes(`value="${sub}"`)) ?? "";
    const fields = [...form.matchAll(/name="(\w+)" value="([^"]*)"/g)].map(([, name = "", value = ""]) => [
      name,
      value,
    ]);
    const after = await this.visit(page.url, Object.fromEntries(fields) as Record<string, string>);
    if (!after.url.includes("/app")) throw new Error(`The sign-in led to ${after.url}`);
    return after.url;
  }
}

/** The paths of pages that a page links to, below `root`. */
function linksOf(html: string, root: string): string[] {
  const paths = [...html.matchAll(/href="(\/[^"#?]*)/g)].map(([, path = ""]) => path);
  return paths.filter((path) => path === root || path.startsWith(`${root}/`));
}

/** Measures and prints. */
export async function benchPages(options: { dir: string; running: (() => Promise<unknown>)[] }): Promise<void> {
  const { dir, running } = options;
  const script = await bundle({ outDir: join(dir, "bundle") });
  const system = await startSystem({ dir, port: await freePort(), bundle: script, direct: true });
  running.push(() => system.stop());
  const { publicUrl } = system;
  const tenants = await runDemonstration(system, (_title, work) => work());
  const people = demonstrationPeople(tenants, Object.keys(config.scopes));
  system.issuer?.people.replace(people);
  await addOwners(system, people);
  const [workerd] = descendantsNamed(process.pid, "workerd");
  if (workerd === undefined) throw new Error("no workerd runs");

  const stranger = new Visitor();
  const owner = new Visitor();
  const metered = tenants.find(({ plan }) => plan === "pro") ?? tenants[0];
  // The account's requests a minute would end the measurement.
  await fetch(`${publicUrl}/admin/api/tenants/${metered?.id}`, {
    method: "PATCH",
    headers: {
      authorization: `Bearer ${system.settings.secrets.operatorToken}`,
      "content-type": "application/json",
    },
    body: JSON.stringify({ limits: { callsPerMinute: "none" } }),
  });
  const person = people.find(
    ({ roles, organisations }) => roles[0] === "owner" && organisations[0]?.id === metered?.id,
  );
  await owner.signInAs(`${publicUrl}/sign-in?return=/app`, person?.sub ?? "");
  const operator = new Visitor();
  await operator.visit(`${publicUrl}/admin/sign-in`, { token: system.settings.secrets.operatorToken });

  print(
    "page                                                     status   CPU ms   first byte p50   round trips     bytes",
  );
  const worst = { cpu: 0, trips: 0 };
  const measure = async (visitor: Visitor, path: string): Promise<string> => {
    for (let visit = 0; visit < WARM_UP; visit += 1) await visitor.visit(publicUrl + path);
    const [cpuBefore, tripsBefore] = [cpuMs(workerd), system.databases?.proxy.stats().httpBatches ?? 0];
    const took: number[] = [];
    let last = { html: "", status: 0 };
    for (let visit = 0; visit < VISITS; visit += 1) {
      const startedAt = performance.now();
      last = await visitor.visit(publicUrl + path);
      took.push(performance.now() - startedAt);
    }
    const cpu = (cpuMs(workerd) - cpuBefore) / VISITS;
    const trips = ((system.databases?.proxy.stats().httpBatches ?? 0) - tripsBefore) / VISITS;
    worst.cpu = Math.max(worst.cpu, cpu);
    worst.trips = Math.max(worst.trips, trips);
    const figures = [last.status, cpu.toFixed(1), percentile(took, 0.5).toFixed(1), trips.toFixed(1), last.html.length];
    print(path.padEnd(56) + figures.map((figure, n) => String(figure).padStart([7, 9, 17, 14, 10][n] ?? 10)).join(""));
    return last.html;
  };

  for (const path of ["/", "/sign-up", "/docs", "/docs/api", "/docs/errors", "/status", "/sign-in"]) {
    const html = await measure(stranger, path);
    if (path === "/" && html.length > BYTES_BOUND) throw new Error(`/ has ${html.length} bytes`);
  }
  for (const [visitor, root] of [
    [owner, `/app/${metered?.id}`],
    [operator, "/admin"],
  ] as const) {
    const waiting: string[] = [root];
    const seen = new Set<string>(waiting);
    const kinds = new Set<string>();
    for (let path = waiting.shift(); path !== undefined && kinds.size < MAX_PAGES; path = waiting.shift()) {
      // Pages of the same kind differ in an id, which has a digit.
      const kind = path.slice(root.length).replaceAll(/\/[^/]*\d[^/]*/g, "/ID");
      if (kinds.has(kind)) continue;
      kinds.add(kind);
      for (const link of linksOf(await measure(visitor, path), root)) {
        if (!seen.has(link)) waiting.push(link);
        seen.add(link);
      }
    }
  }
  print(
    `VERDICT under ${CPU_BOUND_MS} ms of CPU: ${worst.cpu < CPU_BOUND_MS ? "met" : "NOT met"} (at most ${worst.cpu.toFixed(1)}); ` +
      `at most ${ROUND_TRIPS_BOUND} round trips: ${worst.trips <= ROUND_TRIPS_BOUND ? "met" : "NOT met"} (at most ${worst.trips.toFixed(1)})`,
  );
}
