// SHA-256 (FIPS 180-4) whose state can be saved and resumed. A backup is hashed over many steps, and each step may run in
// another process; the runtime's own SHA-256 cannot save its state. It is not constant time, because it hashes no secret.
import * as z from "zod";

const BLOCK_BYTES = 64;

/** The saved state of a hash. Plain JSON. */
export const Sha256State = z.object({
  /** The eight 32-bit words of the hash so far. */
  hash: z.array(z.int()).length(8),
  /** Bytes of the last block while it is incomplete. */
  tail: z.array(z.int()).max(BLOCK_BYTES - 1),
  lengthBytes: z.int().nonnegative(),
});
export type Sha256State = z.infer<typeof Sha256State>;

export class Sha256 {
  readonly #hash: Int32Array;
  readonly #tail = new Uint8Array(BLOCK_BYTES);
  readonly #words = new Int32Array(BLOCK_BYTES);
  #lengthBytes: number;

  constructor(state?: Sha256State) {
    this.#hash = Int32Array.from(state?.hash ?? initialHash);
    this.#lengthBytes = state?.lengthBytes ?? 0;
    this.#tail.set(state?.tail ?? []);
  }

  toJSON(): Sha256State {
    const tail = this.#tail.subarray(0, this.#lengthBytes % BLOCK_BYTES);
    return { hash: [...this.#hash], tail: [...tail], lengthBytes: this.#lengthBytes };
  }

  update(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    let at = 0;
    while (at < bytes.length) {
      const filled = this.#lengthBytes % BLOCK_BYTES;
      const taken = Math.min(BLOCK_BYTES - filled, bytes.length - at);
      this.#lengthBytes += taken;
      if (taken === BLOCK_BYTES) {
        this.#compress(view, at);
      } else {
        this.#tail.set(bytes.subarray(at, at + taken), filled);
        if (filled + taken === BLOCK_BYTES) this.#compress(new DataView(this.#tail.buffer), 0);
      }
      at += taken;
    }
  }

  /** Digest of all bytes so far, in lower-case hex. `update` may follow. */
  hex(): string {
    const last = new Sha256(this.toJSON());
    const padding = new Uint8Array(BLOCK_BYTES + 8 - ((this.#lengthBytes + 8) % BLOCK_BYTES));
    padding[0] = 0x80;
    new DataView(padding.buffer).setBigUint64(padding.length - 8, BigInt(this.#lengthBytes) * 8n);
    last.update(padding);
    return Array.from(last.#hash, (word) => (word >>> 0).toString(16).padStart(8, "0")).join("");
  }

  #compress(block: DataView, at: number): void {
    const w = this.#words;
    for (let t = 0; t < 16; t += 1) w[t] = block.getInt32(at + t * 4);
    for (let t = 16; t < 64; t += 1) {
      const w15 = w[t - 15] ?? 0;
      const w2 = w[t - 2] ?? 0;
      const s0 = rotated(w15, 7) ^ rotated(w15, 18) ^ (w15 >>> 3);
      const s1 = rotated(w2, 17) ^ rotated(w2, 19) ^ (w2 >>> 10);
      w[t] = (w[t - 16] ?? 0) + s0 + (w[t - 7] ?? 0) + s1;
    }
    const sum = this.#hash;
    let { 0: a = 0, 1: b = 0, 2: c = 0, 3: d = 0, 4: e = 0, 5: f = 0, 6: g = 0, 7: h = 0 } = sum;
    for (let t = 0; t < 64; t += 1) {
      const s1 = rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25);
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + (roundConstants[t] ?? 0) + (w[t] ?? 0)) | 0;
      const s0 = rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    const { 0: h0 = 0, 1: h1 = 0, 2: h2 = 0, 3: h3 = 0, 4: h4 = 0, 5: h5 = 0, 6: h6 = 0, 7: h7 = 0 } = sum;
    sum[0] = h0 + a;
    sum[1] = h1 + b;
    sum[2] = h2 + c;
    sum[3] = h3 + d;
    sum[4] = h4 + e;
    sum[5] = h5 + f;
    sum[6] = h6 + g;
    sum[7] = h7 + h;
  }
}

function rotated(word: number, bits: number): number {
  return (word >>> bits) | (word << (32 - bits));
}

/** First 32 bits of the fractional part of a root of a prime. FIPS 180-4, sections 4.2.2 and 5.3.3. */
const fraction = (root: number): number => Math.floor((root % 1) * 2 ** 32) | 0;
const primes = Array.from({ length: 311 }, (_, i) => i + 1).filter(
  (n) => n > 1 && !Array.from({ length: n - 2 }, (_, i) => i + 2).some((divisor) => n % divisor === 0),
);
const roundConstants = Int32Array.from(primes, (prime) => fraction(Math.cbrt(prime)));
const initialHash = primes.slice(0, 8).map((prime) => fraction(Math.sqrt(prime)));
