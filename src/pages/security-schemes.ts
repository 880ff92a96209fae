// The credentials that routes take, as the OpenAPI description names them.
const bearer = (description: string) => ({ type: "http", scheme: "bearer", description });
const inQuery = (description: string) => ({ type: "apiKey", in: "query", name: "token", description });

export const securitySchemes = {
  agentToken: bearer("An API key or an access token of a member."),
  adminKey: bearer("An API key of the tenant with the scope `tenant:admin`."),
  memberToken: bearer("An access token of a member, with the scope `tenant:admin`, whose role has the permission."),
  session: {
    ...{ type: "apiKey", in: "cookie", name: "__Host-tollgate-session" },
    description: "The session of a member who is signed in to pages, whose role has the permission.",
  },
  clientToken: bearer(
    "A token of an OAuth client with a scope of the account, if the member's role has the permission.",
  ),
  personToken: bearer("An access token of a trusted issuer."),
  operatorToken: bearer(
    "A token of the operator issuer with the scope `admin:global` and a role, or the operator token.",
  ),
  operatorSession: {
    ...{ type: "apiKey", in: "cookie", name: "__Host-tollgate-operator" },
    description: "The session of an operator who is signed in to pages, with the role of the sign-in.",
  },
  accessToken: {
    ...{ type: "apiKey", in: "header", name: "Cf-Access-Jwt-Assertion" },
    description: "The token of Cloudflare Access, which it adds to each request that it lets through.",
  },
  impersonation: bearer("The credential of an operator who acts as the tenant's administrator."),
  setupToken: bearer("The `setupToken` of an order, valid for 30 days."),
  statusToken: bearer("The token of an order's `statusUrl`, or any API key of the tenant."),
  statusLink: inQuery("The same token, as a page after Checkout has it in its address."),
  monitorToken: bearer("The tenant's monitor token."),
  monitorLink: inQuery("The same token, for monitors that send no headers."),
  stripeSignature: {
    ...{ type: "apiKey", in: "header", name: "Stripe-Signature" },
    description: "Stripe's signature over the body.",
  },
} satisfies Record<string, Record<string, string>>;
export type Scheme = keyof typeof securitySchemes;
