// The units of a sliding window, exactly: every entry keeps its instant, there are no buckets to round by. In memory, and
// without a clock of its own. An entry counts while `now - atMs < windowMs`.
//
// The entries stand in order of time in two typed arrays: 8 bytes an entry (instants are offsets from a base), and a quarter
// more as room to grow. Entries of one instant share a place, which is exact because they leave together; so an entry is
// named by its instant. Entries may arrive out of order (restored rows, a clock that was set back) and are sorted in. A
// released entry loses its units at once and its place when room is needed, so that failed calls fill no memory.

/** 512 bytes: most tenants never need more. */
const SMALLEST_CAPACITY = 64;
/** Offsets are unsigned integers of 32 bits. */
const LARGEST_OFFSET_MS = 2 ** 32 - 1;
/** A window that is never empty moves its base every 24 days, long before the offsets end after 49 days. */
const REBASE_AFTER_MS = 2 ** 31;

export class SlidingWindow {
  readonly windowMs: number;
  #baseMs = 0;
  #offsets = new Uint32Array(SMALLEST_CAPACITY);
  #units = new Uint32Array(SMALLEST_CAPACITY);
  #head = 0;
  #tail = 0;
  #total = 0;
  /** Entries at or before this instant have left for good, also when the clock is set back. */
  #leftUntilMs = -Infinity;

  constructor(windowMs: number) {
    this.windowMs = windowMs;
  }

  /** Bytes of the typed arrays. */
  get byteLength(): number {
    return this.#offsets.byteLength + this.#units.byteLength;
  }

  /** Adds an entry. Returns the instant that names it: `atMs` rounded up to a multiple of `grainMs`. */
  add(atMs: number, units: number, grainMs = 1): number {
    const entryMs = Math.ceil(atMs / grainMs) * grainMs;
    if (units === 0 || entryMs <= this.#leftUntilMs) return entryMs;
    if (this.#head === this.#tail) {
      this.#head = this.#tail = 0;
      this.#baseMs = entryMs - this.windowMs; // older entries that arrive later still fit
    } else if (entryMs < this.#baseMs || entryMs - this.#baseMs > REBASE_AFTER_MS) {
      this.#rebase(Math.min(entryMs, this.#baseMs + at(this.#offsets, this.#head)) - this.windowMs);
    }
    const index = this.#place(this.#offset(entryMs));
    this.#units[index] = at(this.#units, index) + units;
    this.#total += units;
    return entryMs;
  }

  /** Takes `units` of the entry named `entryMs` back. Does nothing to an entry that has left the window. */
  release(entryMs: number, units: number): void {
    const offset = this.#offset(entryMs);
    const index = this.#search(offset);
    if (index === this.#tail || this.#offsets[index] !== offset) return;
    const held = Math.min(units, at(this.#units, index));
    this.#units[index] = at(this.#units, index) - held;
    this.#total -= held;
  }

  /** The units inside the window that ends at `nowMs`. */
  used(nowMs: number): number {
    this.advance(nowMs);
    return this.#total;
  }

  /** Drops the entries that are outside the window that ends at `nowMs`. */
  advance(nowMs: number): void {
    const leftMs = nowMs - this.windowMs;
    if (leftMs > this.#leftUntilMs) this.#leftUntilMs = leftMs;
    const left = this.#leftUntilMs - this.#baseMs;
    while (this.#head < this.#tail) {
      const units = at(this.#units, this.#head);
      // Released entries are dropped from the front, too, so that the first entry always has units.
      if (units > 0 && at(this.#offsets, this.#head) > left) break;
      this.#total -= units;
      this.#head += 1;
    }
  }

  /** The earliest instant at which `needed` of the units used now have left; `undefined` if fewer are used. */
  freesAt(nowMs: number, needed: number): number | undefined {
    if (needed <= 0) return nowMs;
    this.advance(nowMs);
    let left = 0;
    for (let index = this.#head; index < this.#tail; index++) {
      left += at(this.#units, index);
      if (left >= needed) return this.#baseMs + at(this.#offsets, index) + this.windowMs;
    }
    return undefined;
  }

  #offset(entryMs: number): number {
    // The cut changes something only when the clock was wrong by 49 days.
    return Math.min(entryMs - this.#baseMs, LARGEST_OFFSET_MS);
  }

  /** The index of the entry at this offset. Makes the entry if there is none. */
  #place(offset: number): number {
    let index = this.#search(offset);
    if (index < this.#tail && this.#offsets[index] === offset) return index;
    if (this.#tail === this.#offsets.length) {
      this.#repack();
      index = this.#search(offset);
    }
    if (index < this.#tail) {
      this.#offsets.copyWithin(index + 1, index, this.#tail);
      this.#units.copyWithin(index + 1, index, this.#tail);
    }
    this.#offsets[index] = offset;
    this.#units[index] = 0;
    this.#tail += 1;
    return index;
  }

  /** The first index whose offset is at least this one. Nearly always the end. */
  #search(offset: number): number {
    if (this.#head === this.#tail || offset > at(this.#offsets, this.#tail - 1)) return this.#tail;
    let low = this.#head;
    let high = this.#tail - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (at(this.#offsets, middle) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Moves the entries that have units into arrays with a quarter of free room. It grows, shrinks and forgets at once. */
  #repack(): void {
    let live = 0;
    for (let index = this.#head; index < this.#tail; index++) if (at(this.#units, index) > 0) live += 1;
    const capacity = Math.max(SMALLEST_CAPACITY, Math.ceil(live * 1.25));
    // One array after the other, so that only one of them exists twice at a time.
    this.#offsets = this.#packed(this.#offsets, capacity);
    this.#units = this.#packed(this.#units, capacity);
    this.#head = 0;
    this.#tail = live;
  }

  #packed(from: Uint32Array<ArrayBuffer>, capacity: number): Uint32Array<ArrayBuffer> {
    const to = new Uint32Array(capacity);
    let next = 0;
    for (let index = this.#head; index < this.#tail; index++) {
      if (at(this.#units, index) > 0) to[next++] = at(from, index);
    }
    return to;
  }

  #rebase(baseMs: number): void {
    const shift = this.#baseMs - baseMs;
    for (let index = this.#head; index < this.#tail; index++) {
      this.#offsets[index] = Math.min(at(this.#offsets, index) + shift, LARGEST_OFFSET_MS);
    }
    this.#baseMs = baseMs;
  }
}

/** A typed array has a number at every index below its length, which the compiler does not know. */
function at(array: Uint32Array, index: number): number {
  return array[index] ?? 0;
}
