// A browser without script: it keeps cookies for each origin, follows redirects and pages that refresh, presses buttons, and stops
// where a client waits. Tests, the pages' benchmark and a demonstration use it.
import { plain, textOf } from "./html.ts";

export interface Page {
  url: URL;
  status: number;
  html: string;
  headers: Headers;
}

interface Form {
  action: string;
  method: string;
  fields: [name: string, value: string][];
  /** Values of buttons and radio buttons that a person can choose. */
  choices: [name: string, value: string][];
}

/** Redirects of one navigation. A sign-in has five. */
const MOST_REDIRECTS = 12;

const attribute = (tag: string, name: string): string | undefined => {
  const found = new RegExp(`\\s${name}="(?<value>[^"]*)"`).exec(tag)?.groups?.["value"];
  return found === undefined ? undefined : plain(found);
};

/** The forms of a page, in order. */
export function formsOf(html: string): Form[] {
  return [...html.matchAll(/<form(?<tag>[^>]*)>(?<content>.*?)<\/form>/gs)].map(({ groups }) => {
    const tag = groups?.["tag"] ?? "";
    const inputs = [...(groups?.["content"] ?? "").matchAll(/<(?:input|button)[^>]*>/g)].map(([input]) => ({
      name: attribute(input, "name"),
      value: attribute(input, "value") ?? "",
      isHidden: attribute(input, "type") === "hidden",
    }));
    const named = inputs.flatMap(({ name, value, isHidden }) =>
      name === undefined ? [] : [{ name, value, isHidden }],
    );
    const pairs = (isHidden: boolean): [string, string][] =>
      named.filter((input) => input.isHidden === isHidden).map(({ name, value }) => [name, value]);
    return {
      ...{ action: attribute(tag, "action") ?? "", method: attribute(tag, "method") ?? "get" },
      ...{ fields: pairs(true), choices: pairs(false) },
    };
  });
}

/** Where a browser goes. Everything else is a client's. */
export interface Places {
  /** Tollgate's. */
  publicUrl: string;
  /** The local provider's. */
  issuerUrl: string;
}

export class PlainBrowser {
  readonly #cookies = new Map<string, Map<string, string>>();
  readonly #places: Places;
  /** A path of Tollgate's at which the browser stops, so that a test can change the URL. */
  stopsAt: string | undefined;

  constructor(places: Places) {
    this.#places = places;
  }

  /** The browser's cookies at an origin. */
  cookies(origin: string): Map<string, string> {
    const known = this.#cookies.get(origin) ?? new Map<string, string>();
    this.#cookies.set(origin, known);
    return known;
  }

  /** Opens a URL. Returns the page at the end, or the URL of another origin than Tollgate's and the provider's: a client's. */
  async open(url: string, init: RequestInit = {}): Promise<Page | URL> {
    const { publicUrl, issuerUrl } = this.#places;
    let [at, request] = [new URL(url), init];
    for (let redirects = 0; redirects < MOST_REDIRECTS; redirects += 1) {
      if (![publicUrl, issuerUrl].includes(at.origin) || at.pathname === this.stopsAt) return at;
      const cookies = this.cookies(at.origin);
      const headers = new Headers(request.headers);
      headers.set("cookie", [...cookies].map((pair) => pair.join("=")).join("; "));
      const response = await fetch(at, { ...request, headers, redirect: "manual" });
      for (const each of response.headers.getSetCookie()) {
        const { name = "", value = "" } = /^(?<name>[^=]+)=(?<value>[^;]*)/.exec(each)?.groups ?? {};
        if (/max-age=0/i.test(each)) cookies.delete(name);
        else cookies.set(name, value);
      }
      const html = await response.text();
      const refresh = /<meta http-equiv="refresh" content="0;url=(?<url>[^"]*)"/.exec(html)?.groups?.["url"];
      const next = response.headers.get("location") ?? (refresh === undefined ? undefined : plain(refresh));
      if (next === undefined) return { url: at, status: response.status, html, headers: response.headers };
      at = new URL(next, at);
      request = {};
    }
    throw new Error("too many redirects");
  }

  /** Opens a URL that must lead to a page. */
  async page(url: string, init: RequestInit = {}): Promise<Page> {
    const opened = await this.open(url, init);
    if (opened instanceof URL) throw new Error(`the browser left for ${opened.origin}${opened.pathname}`);
    return opened;
  }

  /** Sends the form of a page that has these values, besides its hidden ones. */
  submit(page: Page, chosen: Record<string, string>, headers: Record<string, string> = {}): Promise<Page | URL> {
    const wanted = Object.entries(chosen);
    const has = (form: Form): boolean =>
      wanted.every(([name, value]) =>
        [...form.fields, ...form.choices].some((field) => field[0] === name && field[1] === value),
      );
    const form = formsOf(page.html).find(has);
    if (form === undefined)
      throw new Error(
        `${page.status} ${page.url.pathname} has no form with ${JSON.stringify(chosen)}: ${textOf(page.html)}`,
      );
    const fields = new Map([...form.fields, ...wanted]);
    return this.open(new URL(form.action, page.url).href, {
      method: form.method.toUpperCase(),
      headers: { "content-type": "application/x-www-form-urlencoded", origin: page.url.origin, ...headers },
      body: new URLSearchParams([...fields]).toString(),
    });
  }

  /** Opens a client's authorization URL and signs in at the local provider. Returns Tollgate's page after it. */
  async signIn(url: string, person: { sub: string; organisation?: string }): Promise<Page> {
    const first = await this.page(url);
    if (first.url.origin !== this.#places.issuerUrl) return first;
    const after = await this.submit(first, person);
    if (after instanceof URL) throw new Error(`the browser left for ${after.origin}`);
    return after;
  }
}
