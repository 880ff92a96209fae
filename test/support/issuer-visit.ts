// A visit of the local issuer's authorization endpoint, over plain values: four providers, two people and one client.
import { auth0Provider } from "../../dev/issuer/auth0.ts";
import { type Answer, type Visit, answerVisit } from "../../dev/issuer/authorization.ts";
import type { Client } from "../../dev/issuer/clients.ts";
import { cognitoProvider } from "../../dev/issuer/cognito.ts";
import { entraProvider } from "../../dev/issuer/entra.ts";
import type { Grant } from "../../dev/issuer/grants.ts";
import { Person } from "../../dev/issuer/people.ts";
import { type Provider, plainProvider } from "../../dev/issuer/provider.ts";

export const API = "http://127.0.0.1:8787/mcp";
export const setting = { baseUrl: "http://127.0.0.1:9000", audience: API, scopes: ["tools:read", "tools:write"] };
export const plain = plainProvider(setting);
export const auth0 = auth0Provider(setting);
export const cognito = cognitoProvider(setting);
export const entra = entraProvider(setting);
export const providers = [plain, auth0, cognito, entra];

export const ann = Person.parse({
  sub: "ann",
  name: "Ann",
  email: "ann@acme.example",
  organisations: [
    { id: "acme", name: "Acme" },
    { id: "bolt", name: "Bolt" },
  ],
  roles: ["owner"],
  permissions: ["tools:read"],
});
export const bob = Person.parse({ sub: "bob", name: "Bob", email: "bob@bolt.example", emailVerified: false });
export const client: Client = {
  id: "web",
  name: "Web",
  secret: undefined,
  redirectUris: ["https://app.example/callback", "http://127.0.0.1/callback"],
  refreshes: true,
};
export const challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"; // RFC 7636, appendix B
export const verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

export const valid = {
  client_id: "web",
  redirect_uri: "https://app.example/callback",
  response_type: "code",
  code_challenge: challenge,
  code_challenge_method: "S256",
  scope: "openid",
  state: "s1",
};

export function visit(
  provider: Provider,
  changed: Record<string, string | undefined>,
  more: Partial<Visit> = {},
): Answer {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...valid, ...changed })) {
    if (value !== undefined) parameters.append(name, value);
  }
  return answerVisit({
    provider,
    directory: provider.name === "entra" ? "acme" : undefined,
    parameters,
    findClient: (id) => (id === client.id ? client : undefined),
    people: [ann, bob],
    session: undefined,
    pick: undefined,
    nowS: 1_000,
    ...more,
  });
}

/** `kind`, and the error that the client would receive. */
export function outcome(answer: Answer): string {
  if (answer.kind === "error") return new URL(answer.location).searchParams.get("error") ?? "no error";
  if (answer.kind === "signed-in") return `${answer.identity.person.sub} of ${answer.identity.organisation}`;
  return answer.kind;
}

/** What Ann granted the client for Acme. */
export const grant: Grant = {
  clientId: "web",
  sub: "ann",
  organisation: "acme",
  scopes: ["openid", "profile", "email", "tools:read"],
  audience: API,
  nonce: "n1",
  authTimeS: 900,
  hasMaxAge: false,
};
