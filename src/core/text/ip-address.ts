// Addresses of the internet protocols, and which of them are public: neither of this machine, nor of a private network, nor kept for
// a special purpose (RFC 6890 and IANA's registries of special-purpose addresses). Only the usual notation counts as an address.

interface Range {
  base: bigint;
  bits: number;
}

const specialIPv4 = [
  ...["0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"],
  ...["192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"],
  ...["224.0.0.0/4", "240.0.0.0/4"],
].map(rangeOf);

/** Everything that the internet routes is within it. */
const globalUnicast = rangeOf("2000::/3");
/** IPv4 behind a translator (NAT64, RFC 6052): as public as the IPv4 address within. */
const translated = rangeOf("64:ff9b::/96");
/** Protocol assignments with Teredo, documentation, and 6to4, which leads to the IPv4 address within. */
const specialIPv6 = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"].map(rangeOf);

/** Whether the text is an address on the internet. A name, a zone id and any other notation is none. */
export function isPublicAddress(text: string): boolean {
  const v4 = parseIPv4(text);
  if (v4 !== undefined) return isPublicIPv4(v4);
  const v6 = parseIPv6(text);
  if (v6 === undefined) return false;
  if (isIn(v6, translated, 128)) return isPublicIPv4(v6 & 0xffff_ffffn);
  return isIn(v6, globalUnicast, 128) && !specialIPv6.some((range) => isIn(v6, range, 128));
}

function isPublicIPv4(address: bigint): boolean {
  return !specialIPv4.some((range) => isIn(address, range, 32));
}

function isIn(address: bigint, { base, bits }: Range, width: number): boolean {
  const shift = BigInt(width - bits);
  return address >> shift === base >> shift;
}

function rangeOf(text: string): Range {
  const [address = "", bits = ""] = text.split("/");
  const base = parseIPv4(address) ?? parseIPv6(address);
  if (base === undefined) throw new Error(`${text} is no range`);
  return { base, bits: Number(bits) };
}

/** Four decimal numbers without leading zeros. */
function parseIPv4(text: string): bigint | undefined {
  const parts = text.split(".");
  if (parts.length !== 4 || !parts.every((part) => /^(?:0|[1-9]\d{0,2})$/.test(part) && Number(part) < 256))
    return undefined;
  return parts.reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
}

function parseIPv6(text: string): bigint | undefined {
  const dotted = /^(?<start>.*:)(?<v4>\d+\.\d+\.\d+\.\d+)$/.exec(text)?.groups;
  const v4 = dotted === undefined ? undefined : parseIPv4(dotted["v4"] ?? "");
  if (dotted !== undefined && v4 === undefined) return undefined;
  const whole =
    v4 === undefined ? text : `${dotted?.["start"]}${(v4 >> 16n).toString(16)}:${(v4 & 0xffffn).toString(16)}`;
  const [start = "", end, ...more] = whole.split("::");
  if (more.length > 0) return undefined;
  const groupsOf = (part: string): string[] => (part === "" ? [] : part.split(":"));
  const [before, after] = [groupsOf(start), groupsOf(end ?? "")];
  const missing = 8 - before.length - after.length;
  if (end === undefined ? missing !== 0 : missing < 1) return undefined;
  const groups = [...before, ...Array.from({ length: end === undefined ? 0 : missing }, () => "0"), ...after];
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined;
  return groups.reduce((sum, group) => (sum << 16n) | BigInt(`0x${group}`), 0n);
}
