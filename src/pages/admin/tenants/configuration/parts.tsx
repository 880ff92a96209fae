// The fields of a tenant's configuration, the same as facts for an operator who may not change them, and its limits with the numbers
// that it was sold.
import type { FC } from "hono/jsx";
import { type Limits, plans } from "../../../../core/plans/plans.ts";
import type { Configuration } from "../../../../operations/configuration-api.ts";
import { catalogue } from "../../../../tools/catalogue.ts";
import { count, dollars } from "../../../parts/figures.tsx";
import { Checks, Select } from "../../../parts/form.tsx";
import { planTitle } from "../../../parts/plan.tsx";
import { type FieldOfForm, FormField, SettingsParts, settingsFields } from "../../../parts/settings-fields.tsx";
import type { Texts, VersionedForm } from "../../../parts/versioned-form.tsx";
import { limitFields, limitText } from "./fields.ts";

type LimitField = (typeof limitFields)[number];

/** A limit as people read it. */
function shownLimit({ isMoney = false }: LimitField, limit: number | null): string {
  if (limit === null) return "no limit";
  return isMoney ? dollars(limit) : count(limit);
}

/** The number that the plan has now, where the tenant was sold another one. */
function nowOf({ name }: LimitField, plan: string, sold: Limits): number | null | undefined {
  const now = plans.get(plan)?.limits[name];
  return now === sold[name] ? undefined : now;
}

/** What the tenant was sold, where another number is in force or in the plan. */
function soldText(field: LimitField, { plan, limits, sold }: LimitFactsProps): string | undefined {
  const now = nowOf(field, plan, sold);
  const isOwn = limits[field.name] !== sold[field.name];
  if (!isOwn && now === undefined) return undefined;
  const ofPlan = now === undefined ? "" : ` ${planTitle(plan)} has ${shownLimit(field, now)} now.`;
  return `${isOwn ? "Set by an operator. " : ""}Sold with ${shownLimit(field, sold[field.name])}.${ofPlan}`;
}

interface LimitFactsProps {
  plan: string;
  limits: Limits;
  sold: Limits;
}

/** The limits in force. */
export const LimitFacts: FC<LimitFactsProps> = (props) => (
  <dl class="facts">
    {limitFields.map((field) => {
      const note = soldText(field, props);
      return (
        <>
          <dt>{field.label}</dt>
          <dd>
            {shownLimit(field, props.limits[field.name])}
            {note !== undefined && <p class="small muted">{note}</p>}
          </dd>
        </>
      );
    })}
  </dl>
);

const byTool: FieldOfForm = {
  ...{ name: "unitsPerHourByTool", label: "Units an hour for single tools", rows: 3 },
  ...{ placeholder: "search_products = 100", hint: "A line for each tool. They also count against the units an hour." },
};
const features: FieldOfForm = {
  ...{ name: "features", label: "Features of its own", rows: 4, placeholder: "seats = 5" },
  hint: "A line for each: true, false, a number or a text. They are above those of the plan, and false takes one away.",
};
const region: FieldOfForm = {
  ...{ name: "region", label: "Region", placeholder: "aws-eu-central-1" },
  hint: "Where the rows must be. Empty: anywhere.",
};
const cap: FieldOfForm = {
  ...{ name: "capCents", label: "Spend cap of the owner ($)" },
  hint: "As the owner has set it, up to the highest own cap. Empty: the spend cap of the limits.",
};

/** Every field with its label. */
export const labelledFields: readonly FieldOfForm[] = [
  ...limitFields,
  byTool,
  { name: "tools", label: "Tools" },
  { name: "allowedTools", label: "The chosen tools" },
  ...[features, region, ...settingsFields, cap],
];

interface FieldsProps {
  form: VersionedForm;
  document: Configuration;
  isPlaced: boolean;
}

export const ConfigurationFields: FC<FieldsProps> = ({
  form,
  document: { plan, effective, features: own },
  isPlaced,
}) => {
  const { limits, soldLimits: sold } = effective;
  const hintOf = (field: LimitField): string =>
    soldText(field, { plan, limits, sold }) ?? `Sold with ${shownLimit(field, sold[field.name])}.`;
  const { errors = {} } = form.refused ?? {};
  const ofPlan = Object.entries(plans.get(plan)?.features ?? {}).filter(([name]) => !(name in own));
  return (
    <>
      <h2>Limits</h2>
      <p class="small muted">An empty field is the number that the tenant was sold. The word none removes a limit.</p>
      <div class="pair">
        {limitFields.map((field) => (
          <FormField
            form={form}
            of={{ ...field, placeholder: limitText(field.isMoney, sold[field.name]), hint: hintOf(field) }}
          />
        ))}
      </div>
      <FormField form={form} of={{ ...byTool, hint: byToolHint(limits, byTool.hint) }} />
      <h2>Tools and features</h2>
      <Select
        label="Tools"
        name="tools"
        value={form.of("tools").value}
        options={[
          { value: "all", text: "Every tool, also future ones" },
          { value: "chosen", text: "Only the chosen tools" },
        ]}
        {...hinted(form.of("tools").note)}
      />
      <Checks
        legend="The chosen tools"
        name="allowedTools"
        options={[...catalogue.values()].map(({ name, title }) => ({ value: name, text: title, note: name }))}
        values={form.of("allowedTools").value.split(" ")}
        error={errors["allowedTools"]}
        {...hinted(form.of("allowedTools").note)}
      />
      <FormField form={form} of={features} />
      {ofPlan.length > 0 && (
        <p class="small muted">
          From the plan: {ofPlan.map(([name, value]) => `${name} = ${String(value)}`).join(", ")}
        </p>
      )}
      {!isPlaced && <FormField form={form} of={region} />}
      <SettingsParts form={form} />
      <h2>Spending</h2>
      <FormField form={form} of={cap} />
    </>
  );
};

const hinted = (hint: string | undefined) => (hint === undefined ? {} : { hint });

/** The numbers in force, where the plan has some for single tools. */
function byToolHint({ unitsPerHourByTool }: Limits, hint = ""): string {
  const inForce = Object.entries(unitsPerHourByTool).map(([tool, units]) => `${tool} ${count(units)}`);
  return inForce.length === 0 ? hint : `${hint} In force: ${inForce.join(", ")}.`;
}

export const ConfigurationFacts: FC<{ document: Configuration; texts: Texts }> = ({ document, texts }) => (
  <>
    <div class="card">
      <h2>Limits</h2>
      <LimitFacts plan={document.plan} limits={document.effective.limits} sold={document.effective.soldLimits} />
    </div>
    <div class="card">
      <h2>Tools, features and settings</h2>
      <dl class="facts">
        {labelledFields.slice(limitFields.length).map(({ name, label }) => (
          <>
            <dt>{label}</dt>
            <dd>{texts[name] === "" ? "–" : texts[name]}</dd>
          </>
        ))}
      </dl>
    </div>
  </>
);
