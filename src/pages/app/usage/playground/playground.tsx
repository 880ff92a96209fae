// The playground: a member calls one tool with the own session, and sees its result, price and receipt.
// Invariants: the call is one like any other: the tenant's object checks, admits, runs and charges it, and it is in the usage, the
// calls and the audit log. Only a POST of this page calls a tool, of those that the caller's plan, features and scopes allow. A form
// has a key of its own, so that the same form, sent twice, is one call.
import type { FC } from "hono/jsx";
import * as z from "zod";
import { callObject } from "../../../../calls/object-call.ts";
import { config } from "../../../../core/app-config.ts";
import type { CallOutcome, Caller } from "../../../../core/call.ts";
import { featuresOf } from "../../../../core/plans/plans.ts";
import type { TenantConfig } from "../../../../core/tenant/tenant.ts";
import { type HttpContext, Problem, noteAct } from "../../../../http.ts";
import { allowedTools } from "../../../../identity/keys/credential-check.ts";
import { rolesNeeded, toolScopesOfRole } from "../../../../identity/members/members.ts";
import { catalogue } from "../../../../tools/catalogue.ts";
import { offeredTools } from "../../../../tools/offer.ts";
import { type Tool, mostUnits, priceInWords } from "../../../../tools/tool.ts";
import type { RefusedForm } from "../../../layout/form-body.ts";
import { TextWithCode } from "../../../parts/code.tsx";
import { Action, Field, Refusal, Select } from "../../../parts/form.tsx";
import { Empty, Notice } from "../../../parts/notice.tsx";
import { accountPage, accountPath, tenantFor } from "../../account-page.tsx";
import { type ArgumentField, argumentsOfFields, argumentsOfJson, fieldsOf } from "./arguments.ts";
import { Outcome } from "./outcome.tsx";

/** `as`: `json` for arguments as one text. */
export const PlaygroundView = z.object({ tool: z.string().optional(), as: z.string().optional() });
type PlaygroundView = z.infer<typeof PlaygroundView>;

const SentCall = z.object({
  tool: z.string(),
  as: z.enum(["fields", "json"]),
  /** Of the form. */
  key: z.uuid(),
});

/** Who calls: the member of the session, with the scopes of the role, or the holder of another credential with its own scopes. */
function callerOf(c: HttpContext): Caller {
  const [actor, caller] = [c.get("actor"), c.get("caller")];
  if (actor.kind === "member" && actor.through === "session") {
    const scopes = toolScopesOfRole(actor.role, Object.keys(config.scopes));
    return { kind: "member", tenantId: actor.tenantId, memberId: actor.id, scopes };
  }
  if (caller === undefined) throw new Problem("role_missing", rolesNeeded("tools:use"));
  return caller;
}

function toolsOf(tenant: TenantConfig, caller: Caller): Tool[] {
  const user = { plan: tenant.plan, features: featuresOf(tenant), scopes: caller.scopes };
  return offeredTools(catalogue.values(), { ...user, allowedTools: allowedTools(tenant, caller) }, Date.now());
}

/** GET /app/:tenantId/playground */
export function showPlayground(c: HttpContext, { query }: { query: PlaygroundView }): Promise<Response> {
  return playground(c, query, {});
}

/** POST /app/:tenantId/playground */
export async function submitCall(c: HttpContext): Promise<Response> {
  const caller = callerOf(c);
  const entered = Object.fromEntries(new URLSearchParams(await c.req.text()));
  const { data: sent } = SentCall.safeParse(entered);
  const tool = toolsOf(await tenantFor(c), caller).find(({ name }) => name === sent?.tool);
  if (sent === undefined || tool === undefined)
    throw new Problem("bad_request", "The form was not complete. Open the page again, and choose a tool.");
  noteAct(c, { target: tool.name });
  const values = Object.fromEntries(
    Object.entries(entered).flatMap(([name, value]) => (name.startsWith("arg.") ? [[name.slice(4), value]] : [])),
  );
  const read = sent.as === "json" ? argumentsOfJson(tool, entered["json"] ?? "") : argumentsOfFields(tool, values);
  const view = { tool: tool.name, as: sent.as };
  if ("errors" in read) {
    c.set("code", "bad_request");
    return playground(c, view, { refused: { entered, errors: read.errors } });
  }
  const startedAtMs = Date.now();
  const outcome = await callObject(c.get("context"), c.executionCtx, {
    ...{ tool, args: read.args, caller, idempotencyKey: `playground-${sent.key}` },
    ...{ progress: undefined, signal: c.req.raw.signal },
  });
  if (outcome.kind === "refused") c.set("code", outcome.refusal.code);
  return playground(c, view, { entered, outcome, ms: Date.now() - startedAtMs });
}

interface Shown {
  refused?: RefusedForm;
  entered?: Readonly<Record<string, string>>;
  outcome?: CallOutcome;
  ms?: number;
}

async function playground(
  c: HttpContext,
  { tool: wanted, as }: PlaygroundView,
  { refused, outcome, ms = 0, entered = refused?.entered ?? {} }: Shown,
): Promise<Response> {
  const tools = toolsOf(await tenantFor(c), callerOf(c));
  const tool = tools.find(({ name }) => name === wanted) ?? tools[0];
  const path = accountPath(c, "/playground");
  return accountPage(
    c,
    {
      ...{ title: "Playground", section: "/playground", hasForm: true, status: refused === undefined ? 200 : 400 },
      lead: "Call a tool yourself, as your agents do.",
      ...(refused !== undefined && { code: "bad_request" }),
    },
    tool === undefined ? (
      <Empty title="No tools">
        <p>Your account has no tool that you may call.</p>
      </Empty>
    ) : (
      <>
        <form method="get" action={path}>
          <Select
            label="Tool"
            name="tool"
            options={tools.map(({ name, title }) => ({ value: name, text: `${title} (${name})` }))}
            value={tool.name}
          />
          <button>Choose</button>
        </form>
        {outcome !== undefined && <Outcome {...{ outcome, ms, tool, callsPath: accountPath(c, "/calls") }} />}
        <CallForm {...{ tool, path, refused, entered, isJson: as === "json" }} />
      </>
    ),
  );
}

interface CallFormProps {
  tool: Tool;
  path: string;
  refused: RefusedForm | undefined;
  entered: Readonly<Record<string, string>>;
  isJson: boolean;
}

const CallForm: FC<CallFormProps> = ({ tool, path, refused, entered, isJson }) => {
  const link = `${path}?tool=${tool.name}`;
  const key = crypto.randomUUID();
  const free = mostUnits(tool) === 0;
  return (
    <section>
      <h2>{tool.title}</h2>
      <p>
        <TextWithCode text={tool.description} />
      </p>
      <Notice tone={free ? "neutral" : "warn"}>
        {free
          ? "This call is free. It works on your account's real data."
          : `This call costs ${priceInWords(tool)}, which your account is charged as for any call, if it succeeds. It works on your account's real data.`}
      </Notice>
      <Refusal refused={refused} />
      <Action
        action={path}
        label={`Call ${tool.name}`}
        tone="main"
        fields={{ tool: tool.name, as: isJson ? "json" : "fields", key }}
      >
        {isJson ? (
          <Field
            label="Arguments as JSON"
            name="json"
            rows={8}
            value={entered["json"] ?? "{}"}
            error={refused?.errors["json"]}
          />
        ) : (
          fieldsOf(tool).map((field) => (
            <Argument field={field} value={entered[`arg.${field.name}`]} error={refused?.errors[field.name]} />
          ))
        )}
      </Action>
      <p class="small">
        <a href={isJson ? link : `${link}&as=json`}>{isJson ? "Use fields" : "Write the arguments as JSON"}</a>
      </p>
    </section>
  );
};

const Argument: FC<{ field: ArgumentField; value: string | undefined; error: string | undefined }> = ({
  field: { name, kind, isRequired, hint, choices, byDefault },
  value,
  error,
}) => {
  const notes = [hint, kind === "json" ? "As JSON." : undefined, byDefault && `Without a value: ${byDefault}.`];
  const words = notes.filter((note) => note !== undefined && note !== "").join(" ");
  const shared = { label: name, name: `arg.${name}`, value, error, ...(words !== "" && { hint: words }) };
  if (kind === "choice" || kind === "switch") {
    const values = kind === "switch" ? ["true", "false"] : choices;
    const options = values.map((each) => ({ value: each, text: each }));
    return <Select {...shared} options={isRequired ? options : [{ value: "", text: "No value" }, ...options]} />;
  }
  if (kind === "json") return <Field {...shared} rows={4} />;
  return <Field {...shared} />;
};
