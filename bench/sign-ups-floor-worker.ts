// The floor of a sign-up: as many requests, Workflow steps and database round trips as the product makes, without any work in
// them. What it takes is what the machine, workerd and the local Workflows engine cost.
import { WorkflowEntrypoint, type WorkflowEvent, type WorkflowStep } from "cloudflare:workers";

interface FloorEnv {
  FLOOR: Workflow<FloorSignUp>;
  CONTROL_DATABASE_URL: string;
  NEON_FETCH_ENDPOINT: string;
}

export interface FloorSignUp {
  steps: number;
  /** Round trips in each step. */
  batches: number;
}

async function roundTrip(env: FloorEnv): Promise<void> {
  const response = await fetch(env.NEON_FETCH_ENDPOINT, {
    method: "POST",
    headers: { "neon-connection-string": env.CONTROL_DATABASE_URL, "neon-raw-text-output": "true" },
    body: JSON.stringify({ queries: [{ query: "SELECT 1", params: [] }] }),
  });
  if (!response.ok) throw new Error(`the proxy answered ${response.status}`);
  await response.json();
}

export class FloorProvisioning extends WorkflowEntrypoint<FloorEnv, FloorSignUp> {
  override async run({ payload }: Readonly<WorkflowEvent<FloorSignUp>>, step: WorkflowStep): Promise<void> {
    for (let number = 1; number <= payload.steps; number += 1) {
      await step.do(`step ${number}`, async () => {
        for (let batch = 0; batch < payload.batches; batch += 1) await roundTrip(this.env);
      });
    }
  }
}

export default {
  async fetch(request, env) {
    const id = new URL(request.url).pathname.slice(1);
    if (id === "") return Response.json({});
    if (request.method === "POST") {
      await env.FLOOR.create({ id, params: await request.json<FloorSignUp>() });
      return Response.json({}, { status: 201 });
    }
    return Response.json(await (await env.FLOOR.get(id)).status());
  },
} satisfies ExportedHandler<FloorEnv>;
