// Lets an OAuth client in for a member of each tenant. The client registers, and it redeems its codes at the token endpoint, as any
// client does. The Worker of the benchmark stands in for the member's browser: it stores the consent without showing it.
import { createHash, randomBytes } from "node:crypto";
import type { BenchTenant } from "./ground.ts";
import type { Runtime } from "./runtime.ts";

const REDIRECT = "http://127.0.0.1:45678/callback";

/** Sets each tenant's `accessToken`. `publicUrl`: the deployment's own name, which the tokens are for. */
export async function letIn({ port }: Runtime, publicUrl: string, tenants: readonly BenchTenant[]): Promise<void> {
  const base = `http://127.0.0.1:${port}`;
  const { client_id: clientId } = await post<{ client_id: string }>(`${base}/oauth/register`, {
    ...{ client_name: "bench", redirect_uris: [REDIRECT], token_endpoint_auth_method: "none" },
  });
  for (const tenant of tenants) {
    const verifier = randomBytes(32).toString("base64url");
    const query = new URLSearchParams({
      ...{ response_type: "code", client_id: clientId, redirect_uri: REDIRECT, state: "s", scope: "tools:read" },
      ...{ code_challenge: createHash("sha256").update(verifier).digest("base64url"), code_challenge_method: "S256" },
      resource: `${publicUrl}/mcp`,
    }).toString();
    const { to } = await post<{ to: string }>(`${base}/bench/consent`, { tenantId: tenant.id, query });
    const fields = new URLSearchParams({
      ...{ grant_type: "authorization_code", client_id: clientId, redirect_uri: REDIRECT, code_verifier: verifier },
      code: new URL(to).searchParams.get("code") ?? "",
    });
    tenant.accessToken = (await post<{ access_token: string }>(`${base}/oauth/token`, fields)).access_token;
  }
}

async function post<Answer>(url: string, body: URLSearchParams | Record<string, unknown>): Promise<Answer> {
  const isForm = body instanceof URLSearchParams;
  const response = await fetch(url, {
    method: "POST",
    ...(!isForm && { headers: { "content-type": "application/json" } }),
    body: isForm ? body : JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${new URL(url).pathname}: ${response.status} ${await response.text()}`);
  return (await response.json()) as Answer;
}
