// The first page: what is sold, the tools with their prices in units, and the plans.
import type { FC } from "hono/jsx";
import { config } from "../../core/app-config.ts";
import { plans } from "../../core/plans/plans.ts";
import type { HttpContext } from "../../http.ts";
import { catalogue } from "../../tools/catalogue.ts";
import { plansInWords, pricesInWords } from "../../tools/offer.ts";
import { type Tool, mostUnits } from "../../tools/tool.ts";
import { publicPage } from "../layout/layout.tsx";
import { Badge } from "../parts/notice.tsx";
import { PlanCard } from "../parts/plan.tsx";
import { TextWithCode } from "../parts/code.tsx";

const { product } = config;

export function showHome(c: HttpContext): Promise<Response> {
  return publicPage(c, { title: "Tools for your agents", hidesTitle: true }, () => (
    <Home mcpUrl={`${c.env.PUBLIC_URL}/mcp`} />
  ));
}

const Home: FC<{ mcpUrl: string }> = ({ mcpUrl }) => (
  <>
    <section class="hero">
      <p class="eyebrow">{product.invoiceLine}</p>
      <h1>Tools your agents can use today</h1>
      <p class="lead">
        {product.name} gives Claude, ChatGPT, Cursor and your own agents {catalogue.size} tools over the Model Context
        Protocol. Each organisation has its own data, members, keys and invoice.
      </p>
      <p class="actions">
        <a class="button main large" href="#plans">
          Choose a plan
        </a>
        <a class="button large" href="/docs">
          Read the docs
        </a>
      </p>
      <p class="endpoint">
        <span class="muted">MCP endpoint</span> <code>{mcpUrl}</code>
      </p>
    </section>
    <section id="points" class="grid">
      <Point title="Sign in, or use a key">
        People sign in with their organisation's provider. Programs use API keys with scopes, budgets and an expiry.
      </Point>
      <Point title="Your data, kept apart">
        The database itself keeps organisations apart. Export everything at any time, and leave when you like.
      </Point>
      <Point title="An invoice that adds up">
        Each call has a receipt. A call that fails costs nothing, and every line of an invoice lists its calls.
      </Point>
    </section>
    <section id="tools">
      <h2>Tools</h2>
      <div class="grid tools">
        {tools.map((tool) => (
          <ToolCard tool={tool} />
        ))}
      </div>
    </section>
    <section id="plans">
      <h2>Plans</h2>
      <p class="muted">Prices are in US dollars, a month. A unit is what a call of a tool costs.</p>
      <Plans />
    </section>
  </>
);

/** The tools with a price first: those are what is sold. */
const tools = [...catalogue.values()].toSorted((a, b) => Number(mostUnits(b) > 0) - Number(mostUnits(a) > 0));

const Point: FC<{ title: string; children?: string }> = ({ title, children }) => (
  <div class="point">
    <h3>{title}</h3>
    <p class="muted">{children}</p>
  </div>
);

const ToolCard: FC<{ tool: Tool }> = ({ tool, tool: { name, title, description, annotations } }) => (
  <div class="card">
    <h3>{title}</h3>
    <p class="small">
      <code>{name}</code>
    </p>
    <p class="muted">
      <TextWithCode text={description} />
    </p>
    <p>
      <Badge tone="accent">{pricesInWords(tool)}</Badge>{" "}
      <Badge>{annotations.readOnly ? "reads only" : "changes data"}</Badge>
      {plansInWords(tool) !== undefined && <Badge>{`plans: ${plansInWords(tool)}`}</Badge>}
    </p>
  </div>
);

/** The largest plan with a price stands out. */
const priced = [...plans.values()].filter(({ amountCents }) => amountCents !== null && amountCents > 0);
const main = priced.at(-1)?.name;

const Plans: FC = () => (
  <div class="grid plans">
    {[...plans.values()].map((plan) => (
      <PlanCard plan={plan} isMain={plan.name === main}>
        {plan.amountCents === null ? (
          <a class="button full" href={product.supportUrl}>
            Talk to us
          </a>
        ) : (
          <a
            class={plan.name === main ? "button main full" : "button full"}
            href={`/sign-up?plan=${encodeURIComponent(plan.name)}`}
          >
            {plan.amountCents === 0 ? "Start for free" : "Subscribe"}
          </a>
        )}
      </PlanCard>
    ))}
  </div>
);
