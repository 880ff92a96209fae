// The pages for a buyer's browser or a program: /pay/:session and /portal/:session.
// A POST of a form answers with a redirect. Fault rules apply to pages as to the API.
import { setTimeout as sleep } from "node:timers/promises";
import * as z from "zod";
import type { Answer, Outcome } from "./api.ts";
import { paySession } from "./checkout.ts";
import type { Context } from "./context.ts";
import { ApiError } from "./errors.ts";
import type { Fault } from "./faults.ts";
import { decodeForm } from "./form.ts";
import { noticePage, payPage, successUrl } from "./pay-page.ts";
import { portalPage } from "./portal-page.ts";
import { actInPortal, portalAction, viewPortal } from "./portal.ts";

type Transact = <T>(work: (context: Context) => T) => T;
/** A page request. Answered when its fault is decided. */
export type Visit = (fault: Fault) => Promise<Outcome>;

/** Handles a page request. Returns undefined when the path is not a page. */
export function visitPage(method: string, path: string, body: string, transact: Transact): Visit | undefined {
  const match = /^\/(pay|portal)\/([^/]+)$/.exec(path);
  if (match === null || (method !== "GET" && method !== "POST")) return undefined;
  const id = match[2] ?? "";
  const answer = () => (match[1] === "pay" ? pay(method, id, body, transact) : portal(method, id, body, transact));
  return async (fault) => {
    if (fault.delayMs > 0) await sleep(fault.delayMs);
    if (fault.kind === "refused") return "closed";
    if (fault.kind === "400" || fault.kind === "429" || fault.kind === "error-500-before") return faultPage;
    const answered = answer();
    if (fault.kind === "lost") return "closed";
    return fault.kind === "error-500-after" ? faultPage : answered;
  };
}

function pay(method: string, id: string, body: string, transact: Transact): Answer {
  const session = transact((context) => {
    const found = context.store.find("checkout.session", id);
    if (found === undefined || method !== "POST") return found;
    const { email } = decodeForm(body);
    return paySession(context, found, typeof email === "string" && email !== "" ? email : undefined);
  });
  if (session === "declined") return page(402, noticePage("Declined", "The card was declined. Go back and try again."));
  if (session === undefined) return page(404, noticePage("Not found", "There is no such Checkout session."));
  if (session.status === "expired") {
    return page(410, noticePage("Expired", "This Checkout session has expired. Start again where you came from."));
  }
  if (session.status === "open") return page(200, payPage(session));
  return redirect(successUrl(session));
}

function portal(method: string, id: string, body: string, transact: Transact): Answer {
  try {
    return transact((context) => {
      const view = viewPortal(context, id);
      if (view === undefined) return page(410, noticePage("Expired", "This session has expired. Open a new one."));
      if (method === "GET") return page(200, portalPage(context.store, view));
      actInPortal(context, view, portalAction.parse(decodeForm(body)));
      return redirect(view.session.url);
    });
  } catch (error) {
    if (error instanceof ApiError) return page(error.status, noticePage("Not possible", error.message));
    if (error instanceof z.ZodError) return page(400, noticePage("Not understood", "The form asks for nothing known."));
    throw error;
  }
}

/** An HTML answer. */
export function page(status: number, body: string): Answer {
  return { status, headers: { "content-type": "text/html; charset=utf-8", "cache-control": "no-store" }, body };
}

function redirect(location: string): Answer {
  return { status: 303, headers: { location }, body: "" };
}

const faultPage = page(500, noticePage("Out of order", "This failure was asked for by a fault rule."));
