// The page of the customer portal: the customer's subscriptions, and a form for each allowed action.
import type { Subscription } from "./objects.ts";
import { describePrice, escapeHtml, html, money } from "./pay-page.ts";
import { offeredPrices, type PortalView } from "./portal.ts";
import type { Store } from "./store.ts";

/** The page of a session. `store` names the prices that can be switched to. */
export function portalPage(store: Store, view: PortalView): string {
  const { session, features, customer } = view;
  const card = features.payment_method_update.enabled
    ? form("payment_method", {}, "Update the payment method")
    : "<p>The payment method cannot be changed here.</p>";
  const back =
    session.return_url === null ? "" : `<p><a href="${escapeHtml(session.return_url)}">Go back to the shop</a></p>`;
  return html(
    "Billing",
    `<p>Customer ${escapeHtml(customer.email ?? customer.id)}</p>
${view.subscriptions.map((subscription) => subscriptionSection(store, view, subscription)).join("")}
<section><h2>Payment method</h2>${card}</section>
${features.invoice_history.enabled ? invoiceTable(view) : ""}${back}`,
  );
}

function subscriptionSection(store: Store, { features }: PortalView, subscription: Subscription): string {
  const { id, status, cancel_at: cancelAt } = subscription;
  const prices = subscription.items.data.map(({ price }) => `<li>${escapeHtml(describePrice(price))}</li>`);
  const ends = cancelAt === null ? "" : `<p>Ends on ${day(cancelAt)}.</p>`;
  const runs = status !== "canceled";
  const cancel =
    !runs || !features.subscription_cancel.enabled
      ? ""
      : subscription.cancel_at_period_end
        ? form("resume", { subscription: id }, "Do not cancel")
        : form("cancel", { subscription: id }, "Cancel the subscription");
  const { enabled, products } = features.subscription_update;
  const offered = runs && enabled ? offeredPrices(products) : [];
  const switches = offered.map((offer) => {
    const price = store.find("price", offer);
    if (price === undefined || subscription.items.data.some((item) => item.price.id === offer)) return "";
    return form("switch", { subscription: id, price: offer }, `Switch to ${describePrice(price)}`);
  });
  return `<section><h2>Subscription</h2><p>Status: <strong>${status}</strong></p><ul>${prices.join("")}</ul>
${ends}${cancel}${switches.join("")}</section>`;
}

function invoiceTable({ invoices }: PortalView): string {
  const rows = invoices.map(
    ({ number, status, total, currency, created }) =>
      `<tr><td>${escapeHtml(number ?? "")}</td><td>${day(created)}</td><td>${money(total, currency)}</td><td>${status}</td></tr>`,
  );
  return `<section><h2>Invoices</h2><table><thead><tr><th scope="col">Number</th><th scope="col">Date</th>
<th scope="col">Total</th><th scope="col">Status</th></tr></thead><tbody>${rows.toReversed().join("")}</tbody></table></section>`;
}

function form(action: string, values: Record<string, string>, label: string): string {
  const hidden = Object.entries({ action, ...values }).map(
    ([name, value]) => `<input type="hidden" name="${name}" value="${escapeHtml(value)}">`,
  );
  return `<form method="post">${hidden.join("")}<button type="submit">${escapeHtml(label)}</button></form>`;
}

function day(seconds: number): string {
  return new Date(seconds * 1000).toISOString().slice(0, 10);
}
