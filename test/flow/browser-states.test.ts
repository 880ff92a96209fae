// Every state of an account and of its forms with a real browser, from an empty account to an unpaid one: each fits the narrowest
// phone, and can be read and used by everyone.
import { expect, test } from "vitest";
import { visitStates } from "../../dev/page-states.ts";
import { newPage } from "../support/browser.ts";
import { callTool, system } from "../support/flow.ts";
import { faultsOf } from "../support/page-faults.ts";

/** As wide as a page of 1,280 pixels at a zoom of 400 % (WCAG 2.2, 1.4.10). */
const NARROWEST = { width: 320, height: 640 };

test("every state of an account and each refused form fits the narrowest screen, and can be read and used by everyone", async () => {
  const faults: Record<string, readonly string[]> = {};
  const seen: string[] = [];
  await visitStates({
    system,
    newPage: () => newPage({ viewport: NARROWEST }),
    call: async (apiKey) => void (await callTool(apiKey, "search_products", { query: "lamp" })),
    async see(page, name) {
      seen.push(name);
      const found = await faultsOf(page);
      if (found.length > 0) faults[name] = found;
      await page.emulateMedia({ colorScheme: "light" });
    },
  });
  expect(faults).toEqual({});
  for (const state of [
    "empty",
    "over-limit",
    "suspended",
    "leaving",
    "past-due",
    "impersonating",
    "refused-form",
    "order",
  ])
    expect(seen.filter((name) => name.startsWith(`${state}-`)).length, state).toBeGreaterThan(2);
}, 400_000);
