// The secrets that one call has read. Invariants: a tool reads only what it declares. A value that the call has read is in no field
// of its log lines, in no progress and in no result: not as it is, not in the base64 of a text around it, not as part of a URL and not in
// JSON. What a tool makes of a value in another way, Tollgate cannot recognise.
import { AppError } from "../core/errors.ts";
import { toBase64Url } from "../core/keys/credentials.ts";
import type { Tool } from "./tool.ts";

export interface ToolSecrets {
  /** The value of a secret that the tool declares. Throws `secret_missing` when it is not set: let that error through. */
  get(name: string): Promise<string>;
}

/** A shorter value appears in results by chance. */
const LEAST_CHARS = 8;
const HIDDEN = "[secret]";

export class CallSecrets implements ToolSecrets {
  readonly #tool: Pick<Tool, "name" | "secrets">;
  readonly #read: (name: string) => Promise<string>;
  readonly #reading = new Map<string, Promise<string>>();
  /** What stands for the values that were read, the longest first. */
  #forms: string[] = [];

  /** `read`: gets the value, or throws why there is none. */
  constructor(tool: Pick<Tool, "name" | "secrets">, read: (name: string) => Promise<string>) {
    this.#tool = tool;
    this.#read = read;
  }

  get(name: string): Promise<string> {
    const { name: tool, secrets = [] } = this.#tool;
    if (!secrets.includes(name))
      return Promise.reject(
        new AppError(
          "internal",
          `${tool} reads a secret that it does not declare. Add its name to \`secrets\` of the tool`,
        ),
      );
    const known = this.#reading.get(name) ?? this.#readOnce(name);
    this.#reading.set(name, known);
    return known;
  }

  async #readOnce(name: string): Promise<string> {
    const value = await this.#read(name);
    this.#forms = [...new Set([...this.#forms, ...formsOf(value)])].toSorted((a, b) => b.length - a.length);
    return value;
  }

  /** The text with every value hidden. */
  hide(text: string): string {
    return this.#forms.reduce((hidden, form) => hidden.replaceAll(form, HIDDEN), text);
  }

  /** The fields of a log line with every value hidden. */
  hideIn<Value>(fields: Readonly<Record<string, Value>>): Record<string, Value | string> {
    if (this.#forms.length === 0) return fields;
    const entries = Object.entries(fields);
    return Object.fromEntries(
      entries.map(([name, value]) => [this.hide(name), typeof value === "boolean" ? value : this.#hideValue(value)]),
    );
  }

  /** A number stays one, unless it is a secret. */
  #hideValue<Value>(value: Value): Value | string {
    const text = String(value);
    const hidden = this.hide(text);
    return hidden === text ? value : hidden;
  }

  /** Whether a text has a value, however short it is. */
  hasAny(text: string): boolean {
    return this.#forms.some((form) => text.includes(form));
  }

  /** Whether a result has a value of eight characters or more: in a text, a number, or the name of a field. */
  isIn(result: unknown): boolean {
    const forms = this.#forms.filter((form) => form.length >= LEAST_CHARS);
    const isSecret = (text: string): boolean => forms.some((form) => text.includes(form));
    const search = (value: unknown): boolean => {
      if (typeof value === "string") return isSecret(value);
      if (typeof value === "number") return isSecret(String(value));
      if (typeof value !== "object" || value === null) return false;
      return Array.isArray(value)
        ? value.some(search)
        : Object.entries(value).some(([name, each]) => isSecret(name) || search(each));
    };
    return forms.length > 0 && search(result);
  }
}

/** The value as a log line or a result may have it. */
function formsOf(value: string): string[] {
  const forms = [value, JSON.stringify(value).slice(1, -1), encodeURIComponent(value)];
  if (value.length < LEAST_CHARS) return forms;
  const inBase64Url = base64FormsOf(new TextEncoder().encode(value));
  return [...forms, ...inBase64Url, ...inBase64Url.map((form) => form.replaceAll("-", "+").replaceAll("_", "/"))];
}

/** The characters that stand for the bytes alone in the base64 of a longer text, for each place at which they may begin. */
function base64FormsOf(bytes: Uint8Array): string[] {
  return [0, 1, 2].map((before) => {
    const all = new Uint8Array(before + bytes.length);
    all.set(bytes, before);
    return toBase64Url(all).slice(Math.ceil((before * 8) / 6), Math.floor((all.length * 8) / 6));
  });
}
