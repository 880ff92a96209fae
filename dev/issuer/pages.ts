// The pages of the local issuer. They work without script, load nothing, and say that no password is needed.
import { html } from "hono/html";
import type { HtmlEscapedString } from "hono/utils/html";
import { type AuthorizationRequest, isHinted } from "./authorization.ts";
import type { Identity, ProviderName } from "./provider.ts";

type Page = HtmlEscapedString | Promise<HtmlEscapedString>;

const titles: Readonly<Record<ProviderName, string>> = {
  plain: "Local sign-in",
  auth0: "Local sign-in, like Auth0",
  cognito: "Local sign-in, like Cognito",
  entra: "Local sign-in, like Entra ID",
};

/** Content-Security-Policy of each page. */
export const PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'";

/**
 * The list of people. Each button posts `sub` and, if there is one, `organisation` to the page's own URL with `query`, the
 * authorization request.
 */
export function signInPage(options: {
  provider: ProviderName;
  request: AuthorizationRequest;
  choices: readonly Identity[];
  query: string;
}): Page {
  const { provider, request, choices, query } = options;
  const { client, redirectUri, loginHint } = request;
  const buttons = choices.map(
    (choice) =>
      html`<li>
        <form method="post" action="?${query}">
          <input type="hidden" name="sub" value="${choice.person.sub}" />
          ${choice.organisation === undefined ? "" : html`<input type="hidden" name="organisation" value="${choice.organisation}" />`}
          <button type="submit" ${loginHint !== undefined && isHinted(choice, loginHint) ? html` class="hinted"` : ""}>
            <strong>${choice.person.name}</strong>
            <span>${choice.person.email}${choice.person.emailVerified ? "" : " (not verified)"}</span>
            <span>${descriptionOf(choice)}</span>
          </button>
        </form>
      </li>`,
  );
  return frame(
    provider,
    "Choose a person",
    html`<p>
        <strong>${client.name}</strong> asks who you are. It gets the answer at <code>${hostOf(redirectUri)}</code>.
      </p>
      ${
        choices.length === 0
          ? html`<p>No person can sign in here. The demonstration adds people when it has made its customers.</p>`
          : html`<ul>
              ${buttons}
            </ul>`
      }`,
  );
}

/** A page that says what is wrong, or what was done. */
export function noticePage(provider: ProviderName, title: string, message: string): Page {
  return frame(provider, title, html`<p>${message}</p>`);
}

function descriptionOf({ person, organisation }: Identity): string {
  const name = person.organisations.find(({ id }) => id === organisation)?.name ?? organisation;
  return [name ?? "no organisation", ...person.roles].join(", ");
}

function hostOf(redirectUri: string): string {
  const { protocol, host } = new URL(redirectUri);
  return host === "" ? protocol : host;
}

function frame(provider: ProviderName, title: string, body: Page): Page {
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width" />
        <title>${title} - ${titles[provider]}</title>
        <style>
          :root {
            color-scheme: light dark;
          }
          body {
            font:
              1rem/1.5 system-ui,
              sans-serif;
            max-width: 36rem;
            margin: 2rem auto;
            padding: 0 1rem;
            overflow-wrap: anywhere;
          }
          ul {
            list-style: none;
            padding: 0;
          }
          li {
            margin: 0.5rem 0;
          }
          button {
            font: inherit;
            width: 100%;
            text-align: left;
            padding: 0.75rem 1rem;
            border: 1px solid #767676;
            border-radius: 0.5rem;
            cursor: pointer;
          }
          button:focus-visible {
            outline: 3px solid currentColor;
            outline-offset: 2px;
          }
          button.hinted {
            border-width: 3px;
          }
          span {
            display: block;
          }
        </style>
      </head>
      <body>
        <main>
          <h1>${title}</h1>
          ${body}
        </main>
        <footer><p>${titles[provider]}. This page is part of a local system: it asks for no password.</p></footer>
      </body>
    </html>`;
}
