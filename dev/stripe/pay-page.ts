// The page at `session.url`: the lines and a pay button. A label marks it as a simulation.
import type { Price, Session } from "./objects.ts";

/** The page of an open session. */
export function payPage(session: Session): string {
  const rows = session.line_items.data.map(({ description, price, quantity }) => {
    const count = quantity === null ? "by usage" : `${quantity} ×`;
    return `<tr><td>${escapeHtml(description ?? price.id)}</td><td>${count} ${escapeHtml(describePrice(price))}</td></tr>`;
  });
  const email =
    session.customer !== null
      ? ""
      : `<p><label for="email">Email</label> <input id="email" name="email" type="email" autocomplete="email" value="${escapeHtml(session.customer_email ?? "")}"></p>`;
  const cancel =
    session.cancel_url === null ? "" : `<p><a href="${escapeHtml(session.cancel_url)}">Cancel and go back</a></p>`;
  return html(
    "Pay",
    `<table><caption>Your order</caption><thead><tr><th scope="col">Product</th><th scope="col">Price</th></tr></thead>
<tbody>${rows.join("")}</tbody></table>
<p>Due now: <strong>${escapeHtml(money(session.amount_total ?? 0, session.currency ?? ""))}</strong></p>
<form method="post">${email}<button type="submit">Pay</button></form>${cancel}`,
  );
}

/** A page that says why nothing can be paid. */
export function noticePage(title: string, message: string): string {
  return html(title, `<p>${escapeHtml(message)}</p>`);
}

/** The URL to which the buyer returns after the payment. */
export function successUrl(session: Session): string {
  return (session.success_url ?? "/").replaceAll("{CHECKOUT_SESSION_ID}", session.id);
}

/** A price in words. */
export function describePrice(price: Price): string {
  const every = price.recurring === null ? "" : ` per ${price.recurring.interval}`;
  if (price.billing_scheme === "tiered") return `tiered price${every}`;
  return `${money(Number(price.unit_amount_decimal ?? 0), price.currency)}${every}`;
}

/** An amount of cents with its currency. */
export function money(cents: number, currency: string): string {
  // At least two places; a price below a cent has more.
  const [whole = "0", places = ""] = (cents / 100).toFixed(14).replace(/0+$/, "").split(".");
  return `${whole}.${places.padEnd(2, "0")} ${currency.toUpperCase()}`;
}

/** A complete page with the simulation label. */
export function html(title: string, body: string): string {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)} - Simulated Stripe</title>
<style>body{font:1rem/1.5 system-ui;max-width:36rem;margin:3rem auto;padding:0 1rem}table{width:100%;text-align:left}button{font:inherit;padding:.5rem 2rem}</style>
</head><body><main><h1>Simulated Stripe</h1><p>No card is asked for and no money moves.</p>${body}</main></body></html>`;
}

export function escapeHtml(value: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return value.replace(/[&<>"']/g, (character) => entities[character] ?? character);
}
