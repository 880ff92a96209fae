// The invoices of an account, and one of them with the calls behind it. Amounts and quantities are Stripe's own.
import type { Child, FC } from "hono/jsx";
import * as z from "zod";
import { type HttpContext, Problem, tenantOf } from "../../../http.ts";
import { invoiceOf, invoicesOf } from "../../../subscriptions/invoices.ts";
import { Instant, count, dollars } from "../../parts/figures.tsx";
import { Badge, Empty, type Tone } from "../../parts/notice.tsx";
import { type Column, NextPage, Table } from "../../parts/table.tsx";
import { accountPage, accountPath } from "../account-page.tsx";
import { AddItUp } from "./add-it-up.tsx";

/** Two years of monthly invoices. */
const PAGE = 24;

const InvoiceId = z.string().regex(/^in_\w{1,100}$/);
export const InvoicesView = z.strictObject({ after: InvoiceId.optional() });

type Invoice = Awaited<ReturnType<typeof invoicesOf>>[number];

const statusWords: Readonly<Record<string, { text: string; tone: Tone }>> = {
  draft: { text: "Being prepared", tone: "neutral" },
  open: { text: "To be paid", tone: "warn" },
  paid: { text: "Paid", tone: "good" },
  uncollectible: { text: "Not collected", tone: "bad" },
  void: { text: "Void", tone: "neutral" },
};

const Status: FC<{ status: string }> = ({ status }) => {
  const { text, tone } = statusWords[status] ?? { text: status, tone: "neutral" };
  return <Badge tone={tone}>{text}</Badge>;
};

/** `$12.00`, and for any other currency than dollars the amount with its name. */
function money(cents: number, currency: string): string {
  return currency === "usd" ? dollars(cents) : `${dollars(cents).replace("$", "")} ${currency.toUpperCase()}`;
}

/** GET /app/:tenantId/invoices */
export async function showInvoicesPage(
  c: HttpContext,
  { query: { after } }: { query: z.infer<typeof InvoicesView> },
): Promise<Response> {
  const found = await invoicesOf(c.get("context"), tenantOf(c), { after, limit: PAGE + 1 });
  const invoices = found.slice(0, PAGE);
  const path = accountPath(c, "/invoices");
  const columns: Column<Invoice>[] = [
    { head: "Date", cell: ({ createdAtMs }) => <Instant at={createdAtMs} isDay /> },
    {
      head: "Invoice",
      isHead: true,
      cell: ({ id, number }) => <a href={`${path}/${id}`}>{number ?? "Draft"}</a>,
    },
    { head: "Status", cell: ({ status }) => <Status status={status} /> },
    { head: "Amount", isNumber: true, cell: ({ totalCents, currency }) => money(totalCents, currency) },
    {
      head: "To be paid",
      isNumber: true,
      cell: ({ dueCents, currency }) => (dueCents === 0 ? "–" : money(dueCents, currency)),
    },
  ];
  return accountPage(
    c,
    {
      ...{ title: "Invoices", section: "/invoices" },
      lead: "Each line adds up from its calls: open an invoice to see them.",
    },
    <>
      <Table
        caption="Invoices"
        hidesCaption
        columns={columns}
        rows={invoices}
        empty={
          <Empty title="No invoices yet">
            <p>The first one comes with the first payment. A plan by contract is invoiced outside of Stripe.</p>
          </Empty>
        }
      />
      <NextPage url={path} next={found.length > PAGE ? (invoices.at(-1)?.id ?? null) : null} />
    </>,
  );
}

/** GET /app/:tenantId/invoices/:invoiceId */
export async function showInvoicePage(c: HttpContext): Promise<Response> {
  const id = InvoiceId.safeParse(c.req.param("invoiceId"));
  const invoice = id.success ? await invoiceOf(c.get("context"), tenantOf(c), id.data) : undefined;
  if (invoice === undefined) throw new Problem("not_found", "The account has no such invoice.");
  const { number, status, createdAtMs, totalCents, dueCents, currency, url, lines, usage } = invoice;
  const behind = (line: (typeof lines)[number]): Child => {
    const index = usage.findIndex(
      ({ startMs, endMs }) => line.usageKey !== null && startMs === line.startMs && endMs === line.endMs,
    );
    if (index >= 0) return <a href={`#usage-${index + 1}`}>Add it up</a>;
    const { carryForwardId } = line;
    return carryForwardId === null ? null : (
      <a href={`${accountPath(c, "/reports")}/${encodeURIComponent(carryForwardId)}`}>Its calls</a>
    );
  };
  return accountPage(
    c,
    {
      ...{ title: number === null ? "Draft of an invoice" : `Invoice ${number}`, section: "/invoices" },
      lead: (
        <>
          <Status status={status} /> <Instant at={createdAtMs} isDay /> ·{" "}
          <a href={accountPath(c, "/invoices")}>All invoices</a>
        </>
      ),
      actions: url !== null && (
        <a class={dueCents > 0 && status === "open" ? "button main" : "button"} href={url} rel="noreferrer">
          {dueCents > 0 && status === "open" ? "Pay at Stripe" : "Open at Stripe"}
        </a>
      ),
    },
    <>
      <Table
        caption="Lines"
        hidesCaption
        rows={lines}
        columns={[
          { head: "Line", isHead: true, cell: ({ description }) => description },
          {
            head: "Period (UTC)",
            cell: ({ startMs, endMs }) => (
              <>
                <Instant at={startMs} isDay /> – <Instant at={Math.max(startMs, endMs - 1)} isDay />
              </>
            ),
          },
          { head: "Quantity", isNumber: true, cell: ({ quantity }) => (quantity === null ? "" : count(quantity)) },
          { head: "Amount", isNumber: true, cell: ({ amountCents }) => money(amountCents, currency) },
          { head: "Behind it", cell: behind },
        ]}
        foot={["Total", "", "", money(totalCents, currency), ""]}
      />
      {usage.map((each, index) => (
        <AddItUp id={`usage-${index + 1}`} of={each} reportsPath={accountPath(c, "/reports")} />
      ))}
    </>,
  );
}
