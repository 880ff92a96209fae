// Routes for the link between an issuer's organisation and a tenant.
import * as z from "zod";
import { notifyObject } from "../control/notify-object.ts";
import {
  BadRequest,
  type HttpContext,
  type PageQuery,
  Problem,
  encodeCursor,
  noteAct,
  pageOfAll,
  pageQuery,
  tenantOf,
} from "../http.ts";
import { forgetUnlinked } from "./tokens/authenticate.ts";
import { parseIssuers } from "./tokens/issuers.ts";
import { MAX_LINKS, linksStore } from "./tokens/links-store.ts";

export const LinkRequest = z.strictObject({ issuer: z.url(), organisation: z.string().min(1).max(200) });

export const LinksQuery = pageQuery(MAX_LINKS);

export async function linkOrganisation(
  c: HttpContext,
  { body: { issuer, organisation } }: { body: z.infer<typeof LinkRequest> },
): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  const known = parseIssuers(c.env.OIDC_ISSUERS).map((each) => each.issuer);
  if (!known.includes(issuer))
    throw new BadRequest(`issuer: this deployment trusts no such issuer. Known: ${known.join(", ") || "none"}.`);
  noteAct(c, { target: `${issuer} ${organisation}` });
  const linked = await linksStore(context.control).link(issuer, organisation, tenantId);
  if (linked === undefined) throw new Problem("conflict", "The tenant has too many links.");
  forgetUnlinked(issuer, organisation);
  if (linked !== tenantId) throw new Problem("conflict", "This organisation is linked to another tenant.");
  return c.json({ issuer, organisation, tenantId, ...(await notifyObject(context, tenantId)) }, 201);
}

export async function listLinks(c: HttpContext, { query }: { query: PageQuery }): Promise<Response> {
  const links = await linksStore(c.get("context").control).list(tenantOf(c));
  return c.json(pageOfAll("links", links, query, ({ issuer, organisation }) => encodeCursor([issuer, organisation])));
}

/** Ends a link: the issuer's tokens for this organisation are refused from the next request on. */
export async function unlinkOrganisation(
  c: HttpContext,
  { query: { issuer, organisation } }: { query: z.infer<typeof LinkRequest> },
): Promise<Response> {
  const tenantId = tenantOf(c);
  const context = c.get("context");
  if (!(await linksStore(context.control).unlink(issuer, organisation, tenantId)))
    throw new Problem("not_found", "The tenant has no such link.");
  noteAct(c, { target: `${issuer} ${organisation}` });
  return c.json({ unlinked: true, ...(await notifyObject(context, tenantId)) });
}
