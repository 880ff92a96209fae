// Measures what each page costs: CPU time of workerd until the page is answered, round trips to databases, and bytes. It signs in as
// an owner and as the operator, opens the first pages, and follows their links to pages of the same kind.
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../cli/ports.ts";
import { config } from "../src/core/app-config.ts";
import { bundle } from "../dev/bundle.ts";
import { crawl, linksOf } from "../dev/crawl.ts";
import { addMembers, runDemonstration } from "../dev/demo.ts";
import { demonstrationPeople } from "../dev/issuer/people.ts";
import { startSystem } from "../dev/system.ts";
import { MINUTE_MS } from "../src/core/time.ts";
import { type Page, PlainBrowser } from "../test/support/plain-browser.ts";
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
/** An account may ask for so many pages a minute, so the measurement waits for the next minute. */
const REFUSED = 429;
const MAX_WAITS = 5;

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
  await addMembers(system, people);
  const [workerd] = descendantsNamed(process.pid, "workerd");
  if (workerd === undefined) throw new Error("no workerd runs");

  const newBrowser = (): PlainBrowser => new PlainBrowser({ publicUrl, issuerUrl: system.issuer?.url ?? "" });
  const owner = newBrowser();
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
  await owner.signIn(`${publicUrl}/sign-in?return=/app`, { sub: person?.sub ?? "" });
  const operator = newBrowser();
  await operator.page(`${publicUrl}/admin/sign-in`, {
    method: "POST",
    headers: { origin: publicUrl },
    body: new URLSearchParams({ token: system.settings.secrets.operatorToken }),
  });

  print("page                                                      CPU ms   answered p50   round trips     bytes");
  const worst = { cpu: 0, trips: 0 };
  const visit = async (browser: PlainBrowser, path: string): Promise<Page> => {
    const page = await browser.page(publicUrl + path);
    if (page.status !== 200 && page.status !== REFUSED) throw new Error(`${path} answered ${page.status}`);
    return page;
  };
  /** Returns the page's HTML. Undefined: it is a file. */
  const measure = async (browser: PlainBrowser, path: string, waits = 0): Promise<string | undefined> => {
    const again = async (): Promise<string | undefined> => {
      if (waits === MAX_WAITS) throw new Error(`${path} is refused after ${MAX_WAITS} minutes`);
      await sleep(MINUTE_MS);
      return measure(browser, path, waits + 1);
    };
    let last = await visit(browser, path);
    if (last.headers.get("content-type")?.startsWith("text/html") !== true) return undefined;
    for (let each = 0; each < WARM_UP; each += 1) last = await visit(browser, path);
    if (last.status === REFUSED) return again();
    const [cpuBefore, tripsBefore] = [cpuMs(workerd), system.databases?.proxy.stats().httpBatches ?? 0];
    const took: number[] = [];
    for (let each = 0; each < VISITS; each += 1) {
      const startedAt = performance.now();
      last = await visit(browser, path);
      took.push(performance.now() - startedAt);
      if (last.status === REFUSED) return again();
    }
    const cpu = (cpuMs(workerd) - cpuBefore) / VISITS;
    const trips = ((system.databases?.proxy.stats().httpBatches ?? 0) - tripsBefore) / VISITS;
    worst.cpu = Math.max(worst.cpu, cpu);
    worst.trips = Math.max(worst.trips, trips);
    const figures = [cpu.toFixed(1), percentile(took, 0.5).toFixed(1), trips.toFixed(1), last.html.length];
    print(path.padEnd(56) + figures.map((figure, n) => String(figure).padStart([9, 15, 14, 10][n] ?? 10)).join(""));
    return last.html;
  };

  const open = (browser: PlainBrowser) => async (path: string) => {
    const html = await measure(browser, path);
    if (path === "/" && (html?.length ?? 0) > BYTES_BOUND) throw new Error(`/ has more than ${BYTES_BOUND} bytes`);
    return html === undefined ? undefined : linksOf(html);
  };
  const paths = ["/", "/sign-up", "/docs", "/docs/api", "/docs/errors", "/status", "/sign-in"];
  await crawl({ paths, open: open(newBrowser()) });
  const account = `/app/${metered?.id}`;
  await crawl({ paths: [account], root: account, open: open(owner) });
  await crawl({ paths: ["/admin"], root: "/admin", open: open(operator) });
  print(
    `VERDICT under ${CPU_BOUND_MS} ms of CPU: ${worst.cpu < CPU_BOUND_MS ? "met" : "NOT met"} (at most ${worst.cpu.toFixed(1)}); ` +
      `at most ${ROUND_TRIPS_BOUND} round trips: ${worst.trips <= ROUND_TRIPS_BOUND ? "met" : "NOT met"} (at most ${worst.trips.toFixed(1)})`,
  );
}
