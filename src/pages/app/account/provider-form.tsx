// The form for the organisation's own sign-in provider. The client secret is only ever entered.
import type { FC } from "hono/jsx";
import type * as z from "zod";
import type { ProviderView } from "../../../identity/providers/api.ts";
import { type ProviderKind, providerKinds } from "../../../identity/providers/providers.ts";
import type { RefusedForm } from "../../layout/form-body.ts";
import { Copyable } from "../../parts/code.tsx";
import { Checks, Field, Select } from "../../parts/form.tsx";

type Provider = z.infer<typeof ProviderView>;

const kinds: Readonly<Record<ProviderKind, string>> = {
  oidc: "OpenID Connect",
  auth0: "Auth0",
  cognito: "Amazon Cognito",
  entra: "Microsoft Entra ID",
};

interface SettingsProps {
  of: Provider | undefined;
  path: string;
  refused: RefusedForm | undefined;
  redirectUri: string;
  /** The name at the sign-in, if none is chosen. */
  slug: string;
}

export const ProviderSettings: FC<SettingsProps> = ({ of: stored, path, refused, redirectUri, slug }) => {
  const { errors = {}, chosen } = refused ?? {};
  const was: Record<string, string> =
    stored === undefined ? {} : { ...textsOf(stored), domains: stored.domains.map(({ domain }) => domain).join(", ") };
  const isRefused = refused?.entered["issuer"] !== undefined;
  const of = (name: string) => ({ name, value: isRefused ? refused.entered[name] : was[name], error: errors[name] });
  const options = [stored?.idJag === true && "idJag", stored?.hasClientSecret === false && "public"];
  return (
    <form method="post" action={path} class="sheet">
      <h2>{stored === undefined ? "Set it up" : "Settings"}</h2>
      <p>Register an application at the provider, of the type web, with this redirect URI:</p>
      <Copyable text={redirectUri} />
      <div class="pair">
        <Select
          label="Provider"
          options={providerKinds.map((kind) => ({ value: kind, text: kinds[kind] }))}
          {...of("kind")}
        />
        <Field label="Issuer" placeholder="https://login.example.com" isRequired {...of("issuer")} type="url" />
        <Field label="Client id" isRequired {...of("clientId")} />
        <Field
          {...{ label: "Client secret", name: "clientSecret", type: "password", error: errors["clientSecret"] }}
          autocomplete="off"
          hint={stored?.hasClientSecret === true ? "Empty: the stored one stays." : "It is never shown again."}
        />
        <Field label="Name at the sign-in" placeholder={slug} {...of("slug")} />
        <Field label="E-mail domains" placeholder="example.com" hint="With commas between them." {...of("domains")} />
      </div>
      <Checks
        legend="Options"
        name="options"
        values={chosen?.["options"] ?? options.filter((each) => each !== false)}
        options={[
          { value: "public", text: "The application is a public client, without a secret" },
          { value: "idJag", text: "Let agents in by the provider's assertions (ID-JAG), without a browser" },
        ]}
      />
      <div class="actions">
        <button class="main">Save</button>
      </div>
    </form>
  );
};

function textsOf({ kind, issuer, clientId, slug }: Provider): Record<string, string> {
  return { kind, issuer, clientId, slug };
}
