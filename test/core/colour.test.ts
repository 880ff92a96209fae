// The colours that customers choose for their pages: any of them, and people can read what is on it.
import * as fc from "fast-check";
import { Hono } from "hono";
import { expect, test } from "vitest";
import { SettingsPatch } from "../../src/core/tenant/settings.ts";
import type { HttpEnv } from "../../src/http.ts";
import { colourStyle, showAsset } from "../../src/pages/assets/assets.ts";
import { coloursOf, contrast } from "../../src/pages/layout/colour.ts";
import { personalPage } from "../../src/pages/layout/layout.tsx";

/** Oklab (CSS Color 4, 9.2), in which the stylesheet mixes its soft backgrounds. */
const toOklab = (colour: string): number[] => {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const [l, m, s] = [
    0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b,
    0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b,
    0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b,
  ].map(Math.cbrt) as [number, number, number];
  return [
    0.2104542553 * l + 0.793617785 * m - 0.0040720468 * s,
    1.9779984951 * l - 2.428592205 * m + 0.4505937099 * s,
    0.0259040371 * l + 0.7827717662 * m - 0.808675766 * s,
  ];
};
const fromOklab = ([L = 0, a = 0, b = 0]: number[]): string => {
  const [l, m, s] = [
    L + 0.3963377774 * a + 0.2158037573 * b,
    L - 0.1055613458 * a - 0.0638541728 * b,
    L - 0.0894841775 * a - 1.291485548 * b,
  ].map((value) => value ** 3) as [number, number, number];
  const channels = [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s,
  ].map((value) => (value <= 0.0031308 ? 12.92 * value : 1.055 * value ** (1 / 2.4) - 0.055));
  const byte = (value: number): number => Math.round(Math.min(1, Math.max(0, value)) * 255);
  return `#${channels.map((value) => byte(value).toString(16).padStart(2, "0")).join("")}`;
};
/** `color-mix(in oklab, colour 11%, surface)`: --accent-soft. */
const soft = (colour: string, surface: string): string => {
  const behind = toOklab(surface);
  return fromOklab(toOklab(colour).map((value, at) => 0.11 * value + 0.89 * (behind[at] ?? 0)));
};

test("text of every colour that a customer may choose, and text on it, can be read in light and dark", () => {
  const byte = fc.integer({ min: 0, max: 255 }).map((value) => value.toString(16).padStart(2, "0"));
  const surfaces = { light: ["#ffffff", "#f8f9fb", "#f1f3f7"], dark: ["#0b0d12", "#12151d", "#181c26", "#0f121a"] };
  fc.assert(
    fc.property(fc.tuple(byte, byte, byte), (bytes) => {
      const { brand, onBrand, strong, light, dark } = coloursOf(`#${bytes.join("")}`);
      for (const background of [brand, strong]) expect(contrast(onBrand, background)).toBeGreaterThanOrEqual(4.5);
      for (const each of surfaces.light) expect(contrast(light, each), light).toBeGreaterThanOrEqual(4.5);
      for (const each of surfaces.dark) expect(contrast(dark, each), dark).toBeGreaterThanOrEqual(4.5);
      expect(contrast(light, soft(light, "#ffffff")), `${light} on its soft`).toBeGreaterThanOrEqual(4.5);
      expect(contrast(dark, soft(dark, "#12151d")), `${dark} on its soft`).toBeGreaterThanOrEqual(4.5);
    }),
    { numRuns: 20_000 },
  );
});

test.each([
  ["#1d4ed8", "#ffffff"],
  ["#000000", "#ffffff"],
  ["#ffffff", "#10151f"],
  ["#facc15", "#10151f"],
  ["#808080", "#10151f"],
])("the text on the colour %s is %s", (colour, text) => {
  expect(coloursOf(colour).onBrand).toBe(text);
});

test("a page in a customer's colour loads its stylesheet from Tollgate, and has no inline style", async () => {
  const app = new Hono<HttpEnv>();
  app.get("/assets/:file", showAsset);
  app.get("/", (c) => personalPage(c, { title: "A page", colour: "#FACC15" }, "content"));
  app.onError((_error, c) => c.text("refused", 404));
  const page = await app.request("/");
  expect(page.headers.get("content-security-policy")).toContain("style-src 'self'");
  const html = await page.text();
  const { path } = colourStyle("#facc15");
  expect(html).toContain(`<link rel="stylesheet" href="${path}"`);
  expect(html).not.toMatch(/ style=|<style/);
  const sheet = await app.request(path);
  expect([sheet.headers.get("content-type"), sheet.headers.get("cache-control")]).toEqual([
    ...["text/css; charset=utf-8", "public, max-age=31536000, immutable"],
  ]);
  expect(await sheet.text()).toMatch(
    /^:root\{--brand:#facc15;--on-brand:#10151f;--brand-strong:#[0-9a-f]{6};--accent:light-dark\(#[0-9a-f]{6},#[0-9a-f]{6}\)\}$/,
  );
  for (const other of [
    path.replace("facc15", "facc16"),
    path.replace(/-[0-9a-f]{16}/, `-${"0".repeat(16)}`),
    "/assets/colour-facc15.css",
  ])
    expect((await app.request(other)).status, other).toBe(404);
});

test.each([
  ["#1d4ed8", true],
  ["#1D4ED8", true],
  ["#fff", false],
  ["1d4ed8", false],
  ["red", false],
  ["#1d4ed8;}", false],
  ["#1d4ed8\n", false],
  [null, true],
])("the colour %j of a tenant's branding is accepted: %s", (colour, isAccepted) => {
  expect(SettingsPatch.safeParse({ branding: { colour } }).success).toBe(isAccepted);
});
