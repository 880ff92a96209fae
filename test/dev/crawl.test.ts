// The crawl that screenshots and the pages' benchmark share.
import { expect, test } from "vitest";
import { crawl, linksOf } from "../../dev/crawl.ts";

const tenant = "/app/tapkpjsyorkxpcmns";
const site: Readonly<Record<string, readonly string[]>> = {
  [tenant]: ["/", "/app/other", `${tenant}/keys`, `${tenant}/members?by=name`, `${tenant}/reconciliation`],
  [`${tenant}/keys`]: [`${tenant}/keys/new`, `${tenant}/keys/HhvMjlq`, `${tenant}/keys/S2plm94uim6W`, tenant],
};

test("a crawl opens one page of each kind, follows links below its root alone, and ends", async () => {
  const opened: string[] = [];
  await crawl({
    paths: [tenant],
    root: tenant,
    open: async (path, kind) => {
      opened.push(`${kind} at ${path}`);
      return linksOf((site[path] ?? []).map((href) => `<a href="${href}#part">`).join(""));
    },
  });
  expect(opened).toEqual([
    `/app/ID at ${tenant}`,
    `/app/ID/keys at ${tenant}/keys`,
    `/app/ID/members at ${tenant}/members?by=name`,
    `/app/ID/reconciliation at ${tenant}/reconciliation`,
    `/app/ID/keys/new at ${tenant}/keys/new`,
    `/app/ID/keys/ID at ${tenant}/keys/HhvMjlq`,
  ]);
});

test("a crawl without a root opens the given pages alone, and a file has no links", async () => {
  const opened: string[] = [];
  await crawl({
    paths: ["/", "/docs", "/docs"],
    open: async (path) => {
      opened.push(path);
      return path === "/" ? ["/status"] : undefined;
    },
  });
  expect(opened).toEqual(["/", "/docs"]);
});
