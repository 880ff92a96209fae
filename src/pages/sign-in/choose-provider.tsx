// The page that asks where a person signs in. It lists the providers of the deployment and has a field for an organisation with its
// own. It never lists those: a person types the name or an e-mail address, and an unknown one leads back to the same page.
import type { HttpContext } from "../../http.ts";
import { type Issuer, issuerName } from "../../identity/tokens/issuers.ts";
import { personalPage } from "../layout/layout.tsx";

/** A path of Tollgate's own with one more parameter. */
export function withParameter(path: string, name: string, value: string): string {
  return `${path}${path.includes("?") ? "&" : "?"}${name}=${encodeURIComponent(value)}`;
}

export interface Choice {
  issuers: readonly Issuer[];
  /** The path of this sign-in, to which the choice is added. */
  url: string;
  /** The person has typed what Tollgate does not know. */
  isUnknown?: boolean;
}

export function choosePage(c: HttpContext, { issuers, url, isUnknown = false }: Choice): Promise<Response> {
  return personalPage(
    c,
    { title: "Sign in", hasForm: true },
    <div class="narrow">
      {isUnknown && (
        <p class="warning" role="alert">
          No organisation signs in under this name or address. Check the spelling, or ask your administrator.
        </p>
      )}
      <p>Where does your organisation sign in?</p>
      {issuers.map((issuer) => (
        <p>
          <a class="button" href={withParameter(url, "provider", issuer.issuer)}>
            {issuerName(issuer)}
          </a>
        </p>
      ))}
      <form method="post" action="/sign-in">
        <input type="hidden" name="continue" value={url} />
        <p>
          <label for="organisation">Your work e-mail or your organisation's name</label>
        </p>
        <p class="actions">
          <input id="organisation" name="organisation" maxlength={320} autocomplete="email" required />
          <button class="main">Continue</button>
        </p>
      </form>
    </div>,
  );
}
