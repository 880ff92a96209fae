// The organisation's own sign-in provider: its settings, the domains that it has proved, and its removal.
import type { FC } from "hono/jsx";
import * as z from "zod";
import type { HttpContext } from "../../../http.ts";
import {
  type ProviderView,
  checkDomains,
  ownProvider,
  removeProvider,
  saveProvider,
} from "../../../identity/providers/api.ts";
import { ProviderRequest } from "../../../identity/providers/providers.ts";
import { CALLBACK_PATH } from "../../../identity/oauth/upstream.ts";
import { type RefusedForm, answerOf, attempt, doneAt, noFields, readForm } from "../../layout/form-body.ts";
import { Copyable } from "../../parts/code.tsx";
import { Action, Refusal } from "../../parts/form.tsx";
import { Badge } from "../../parts/notice.tsx";
import { Table } from "../../parts/table.tsx";
import { accountPage, accountPath, may, tenantFor } from "../account-page.tsx";
import { ProviderSettings } from "./provider-form.tsx";

type Provider = z.infer<typeof ProviderView>;

const { shape } = ProviderRequest;
const ProviderForm = z.object({
  kind: shape.kind,
  issuer: shape.issuer,
  clientId: shape.clientId,
  clientSecret: shape.clientSecret.unwrap().unwrap().optional(),
  options: z.array(z.enum(["public", "idJag"])).default([]),
  subjectClaim: shape.subjectClaim,
  slug: shape.slug,
  domains: z
    .string()
    .transform((text) => [...new Set(text.split(/[\s,;]+/).filter((word) => word !== ""))])
    .pipe(shape.domains.in.unwrap())
    .optional(),
});

/** GET /app/:tenantId/provider */
export function showOwnProvider(c: HttpContext): Promise<Response> {
  return providerPage(c);
}

/** POST /app/:tenantId/provider */
export async function submitProvider(c: HttpContext): Promise<Response> {
  const form = await readForm(c, ProviderForm);
  if ("refused" in form) return providerPage(c, form.refused);
  const { options, clientSecret, domains = [], ...fields } = form.data;
  const secret = options.includes("public") ? null : clientSecret;
  const body = { ...fields, domains, clientSecret: secret, idJag: options.includes("idJag") };
  const done = await attempt(c, () => saveProvider(c, { body }), form.sent);
  if ("refused" in done) return providerPage(c, done.refused);
  return doneAt(c, accountPath(c, "/provider"), "The provider is saved. People can sign in there now.");
}

/** POST /app/:tenantId/provider/domains: looks for the DNS records of the domains. */
export async function submitDomains(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => checkDomains(c), noFields);
  if ("refused" in done) return providerPage(c, done.refused);
  const open = (await ownProvider(c))?.domains.filter(({ isVerified }) => !isVerified) ?? [];
  return open.length === 0
    ? doneAt(c, accountPath(c, "/provider"), "All domains are proved.")
    : doneAt(c, accountPath(c, "/provider"), "Not each record is published yet. The DNS may take an hour.", "warn");
}

/** POST /app/:tenantId/provider/remove */
export async function submitProviderEnd(c: HttpContext): Promise<Response> {
  const done = await attempt(c, () => removeProvider(c), noFields);
  if ("refused" in done) return providerPage(c, done.refused);
  return doneAt(c, accountPath(c, "/provider"), "The provider is removed. Its sessions and agents have ended.");
}

async function providerPage(c: HttpContext, refused?: RefusedForm): Promise<Response> {
  const provider = await ownProvider(c);
  const path = accountPath(c, "/provider");
  const writes = may(c, "provider:manage");
  const redirectUri = `${c.env.PUBLIC_URL}${CALLBACK_PATH}`;
  return accountPage(
    c,
    {
      ...{ title: "Sign-in provider", section: "/provider", ...answerOf(refused) },
      lead: "Let your people sign in with your organisation's own accounts. It speaks for this organisation alone.",
    },
    <>
      <Refusal refused={refused} />
      {provider !== undefined && (
        <div class="card">
          <h3>People sign in here</h3>
          <Copyable text={provider.signInUrl} />
        </div>
      )}
      {provider !== undefined && provider.domains.length > 0 && (
        <Domains of={provider} path={writes ? path : undefined} />
      )}
      {writes ? (
        <ProviderSettings of={provider} {...{ path, refused, redirectUri }} slug={(await tenantFor(c)).id} />
      ) : (
        <p class="muted">Only an owner can change it: a provider can name an owner.</p>
      )}
      {provider !== undefined && writes && (
        <div class="card danger">
          <h3>Remove</h3>
          <p>The sessions and agents of its people end at once. They stay members, and sign in elsewhere.</p>
          <Action
            action={`${path}/remove`}
            label="Remove the provider"
            tone="bad"
            confirm="Remove the provider? The sessions and agents of its people end at once."
          />
        </div>
      )}
    </>,
  );
}

const Domains: FC<{ of: Provider; path: string | undefined }> = ({ of: { domains }, path }) => (
  <>
    <h2>Domains</h2>
    <Table
      caption="Domains whose people find the provider by their e-mail address"
      hidesCaption
      rows={domains}
      columns={[
        { head: "Domain", isHead: true, cell: ({ domain }) => domain },
        {
          head: "State",
          cell: ({ isVerified }) => (isVerified ? <Badge tone="good">proved</Badge> : <Badge tone="warn">open</Badge>),
        },
        {
          head: "DNS record (TXT)",
          cell: ({ record: { name, value } }) => (
            <span class="small">
              <code>{name}</code> <code>{value}</code>
            </span>
          ),
        },
      ]}
    />
    {path !== undefined && domains.some(({ isVerified }) => !isVerified) && (
      <Action action={`${path}/domains`} label="Look for the records" />
    )}
  </>
);
