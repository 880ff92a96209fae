// The files that pages load: stylesheets, our own script and htmx. Tollgate serves them itself. The name of each has the hash
// of its content, so that a browser keeps it for a year, and a new deployment has new names.
import { createHash } from "node:crypto";
import { accountSheet, browserScript, htmxScript, styleSheet } from "#assets";
import { config } from "../../core/app-config.ts";
import { AppError } from "../../core/errors.ts";
import type { HttpContext } from "../../http.ts";
import { colourRules } from "../layout/colour.ts";

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

export const style = asset("style", "css", `${colourRules(config.product.colour)}${styleSheet}`);
/** For pages with sections at the side, beside `style`. */
export const accountStyle = asset("account", "css", accountSheet);
export const script = asset("tollgate", "js", browserScript);
export const htmx = asset("htmx", "js", htmxScript);

const assets = new Map([style, accountStyle, script, htmx].map((each) => [each.path, each]));

/** The stylesheet of a customer's colour `#rrggbb`, for pages that have `style`, too. Its name has all of it, so none is stored. */
export function colourStyle(colour: string): Asset {
  return asset(`colour-${colour.slice(1).toLowerCase()}`, "css", colourRules(colour.toLowerCase()));
}

/** GET /assets/:file */
export function showAsset(c: HttpContext): Response {
  const { path } = c.req;
  const colour = /^\/assets\/colour-(?<hex>[0-9a-f]{6})-/.exec(path)?.groups?.["hex"];
  const found = colour === undefined ? assets.get(path) : colourStyle(`#${colour}`);
  if (found?.path !== path) throw new AppError("not_found");
  return c.body(found.text, 200, {
    "content-type": found.type,
    "cache-control": "public, max-age=31536000, immutable",
  });
}
