// Makes the ids and passwords of the product, all from the platform's secure random source.

/** A UUID of version 7 (RFC 9562). Ids of one time lie together in an index, so that inserts touch few pages. */
export function newTimedId(nowMs: number): string {
  const time = nowMs.toString(16).padStart(12, "0");
  return `${time.slice(0, 8)}-${time.slice(8)}-7${crypto.randomUUID().slice(15)}`;
}
