// The copy of a tenant's configuration that its object decides by. The control tables are the truth: a change reaches the
// copy before it is reported as done, and a copy older than `CONFIG_TRUSTED_MS` decides nothing.
import * as z from "zod";
import { CONFIG_REFRESH_MS, CONFIG_TRUSTED_MS, TenantConfig, type TenantId } from "../core/tenant/tenant.ts";
import { describeError, log } from "../log.ts";

const Copy = z.object({ value: TenantConfig, readAtMs: z.number() });
type Copy = z.infer<typeof Copy>;

export interface ConfigSource {
  tenantId: TenantId;
  now(): number;
  /** Reads the tenant from the control tables. `undefined`: there is no such tenant. */
  read(): Promise<TenantConfig | undefined>;
  /** Called with each newer copy. `stored` is the text for `restore`, so that a copy outlives an eviction. */
  onRead(config: TenantConfig, stored: string): void;
  /** Keeps the object awake for a refresh that no call waits for. */
  waitUntil(work: Promise<unknown>): void;
}

export class TenantConfigCopy {
  readonly #source: ConfigSource;
  #copy: Copy | undefined;
  #reading: Promise<unknown> | undefined;

  constructor(source: ConfigSource) {
    this.#source = source;
  }

  /** The newest known configuration, however old. */
  get latest(): TenantConfig | undefined {
    return this.#copy?.value;
  }

  /** Starts from a stored copy. One that an earlier version of this program stored may lack fields: it is ignored. */
  restore(stored: string): void {
    this.#copy = Copy.safeParse(JSON.parse(stored)).data;
  }

  /** The copy if it may still be trusted. A copy that ages is refreshed in the background, so that no call waits. */
  fresh(): TenantConfig | undefined {
    if (this.#copy === undefined) return undefined;
    const ageMs = this.#source.now() - this.#copy.readAtMs;
    if (ageMs >= CONFIG_TRUSTED_MS) return undefined;
    if (ageMs >= CONFIG_REFRESH_MS) this.#source.waitUntil(this.#readOnce().catch(() => undefined));
    return this.#copy.value;
  }

  /** The trusted copy, read again when it is too old, or why there is none. */
  async current(): Promise<TenantConfig | "tenant_unknown" | "control_unavailable"> {
    const known = this.fresh();
    if (known !== undefined) return known;
    try {
      await this.#readOnce();
    } catch (error) {
      log("error", "config_not_read", { tenantId: this.#source.tenantId, error: describeError(error) });
      return "control_unavailable";
    }
    return this.fresh() ?? "tenant_unknown";
  }

  /** Reads the control tables after any read that is under way, which may have begun before the change of interest. */
  async refresh(): Promise<TenantConfig | undefined> {
    await this.#reading?.catch(() => undefined);
    return this.read();
  }

  /** Reads the control tables now. `undefined`: there is no such tenant. */
  async read(): Promise<TenantConfig | undefined> {
    const askedAtMs = this.#source.now();
    const value = await this.#source.read();
    if (value === undefined) return undefined;
    // The later read wins, not the higher version: a restore of the control tables takes versions back.
    if (this.#copy !== undefined && this.#copy.readAtMs > askedAtMs) return this.#copy.value;
    this.#copy = { value, readAtMs: askedAtMs };
    this.#source.onRead(value, JSON.stringify(this.#copy));
    return value;
  }

  /** One read for all calls that wait for one. */
  #readOnce(): Promise<unknown> {
    this.#reading ??= this.read().finally(() => (this.#reading = undefined));
    return this.#reading;
  }
}
