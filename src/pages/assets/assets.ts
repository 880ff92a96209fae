// The files that pages load: one stylesheet, our own script and htmx. Tollgate serves them itself. The name of each has the hash
// of its content, so that a browser keeps it for a year, and a new deployment has new names.
import { createHash } from "node:crypto";
import { browserScript, htmxScript, styleSheet } from "#assets";
import { config } from "../../core/app-config.ts";
import { AppError } from "../../core/errors.ts";
import type { HttpContext } from "../../http.ts";

interface Asset {
  path: string;
  type: string;
  text: string;
}

function asset(name: string, extension: "css" | "js", text: string): Asset {
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 16);
  const type = extension === "css" ? "text/css; charset=utf-8" : "text/javascript; charset=utf-8";
  return { path: `/assets/${name}-${hash}.${extension}`, type, text };
}

const { colour } = config.product;
const brand = `:root{--brand:${colour};--on-brand:${isLight(colour) ? "#10151f" : "#fff"}}`;

export const style = asset("style", "css", `${brand}${styleSheet}`);
export const script = asset("tollgate", "js", browserScript);
export const htmx = asset("htmx", "js", htmxScript);

const assets = new Map([style, script, htmx].map((each) => [each.path, each]));

/** GET /assets/:file */
export function showAsset(c: HttpContext): Response {
  const found = assets.get(c.req.path);
  if (found === undefined) throw new AppError("not_found");
  return c.body(found.text, 200, {
    "content-type": found.type,
    "cache-control": "public, max-age=31536000, immutable",
  });
}

/** Whether dark text is easier to read than white text on a colour `#rrggbb` (WCAG 2.2, relative luminance). */
export function isLight(hex: string): boolean {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => {
    const value = Number.parseInt(hex.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05);
}
