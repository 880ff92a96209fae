// A registry object of the OAuth server: it stores what has no tenant yet (client registrations, handles of unfinished sign-ins).
// A few objects share them (keys.ts). The rules are in entries.ts; this file has the RPC methods and the alarm.
import { DurableObject } from "cloudflare:workers";
import { HOUR_MS } from "../../core/time.ts";
import { type NewEntry, RegistryEntries } from "./entries.ts";

/** How often an object that has entries looks for expired ones. Each write also deletes some. */
const PRUNE_EVERY_MS = HOUR_MS;

export class OauthRegistry extends DurableObject<Env> {
  readonly #entries: RegistryEntries;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#entries = new RegistryEntries(ctx.storage.sql, () => Date.now());
  }

  get(key: string): string | null {
    return this.#entries.get(key);
  }

  async put(key: string, entry: NewEntry): Promise<void> {
    this.#entries.put(key, entry);
    await this.#wakeToPrune();
  }

  /** Stores an entry, unless there is one. Of two requests at once, one gets `null`. */
  async claim(key: string, entry: NewEntry): Promise<string | null> {
    const known = this.#entries.claim(key, entry);
    await this.#wakeToPrune();
    return known;
  }

  async #wakeToPrune(): Promise<void> {
    if ((await this.ctx.storage.getAlarm()) === null) await this.ctx.storage.setAlarm(Date.now() + PRUNE_EVERY_MS);
  }

  extend(key: string, expiresAtMs: number): void {
    this.#entries.extend(key, expiresAtMs);
  }

  delete(key: string): void {
    this.#entries.delete(key);
  }

  override async alarm(): Promise<void> {
    if (this.#entries.prune()) await this.ctx.storage.setAlarm(Date.now() + PRUNE_EVERY_MS);
  }
}
