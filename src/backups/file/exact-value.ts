// Decides which values of an import PostgreSQL would take and store as other values: rounded numbers, dates whose day and
// month can be exchanged, zones and times that the column drops, words such as `now`, bytes in another form, and names that
// a JSON object has twice. Pure. An import refuses them; all others are for PostgreSQL to take or refuse.
// Invariant: PostgreSQL's own text of a value is never refused, so an export can always be imported.
import { nameTwice, storable } from "../../core/text/text.ts";

interface ColumnType {
  /** Without sizes and zone: `numeric`, `timestamp`. */
  base: string;
  /** The numbers in brackets. */
  sizes: readonly number[];
  keepsZone: boolean;
}

/** Why a column of this type would not hold exactly this text, in words for the sender. `undefined`: it would, or PostgreSQL refuses it. */
export function inexactValue(text: string, type: string): string | undefined {
  const parsed = /^([a-z ]+?)(?:\(([\d,]+)\))?( with(?:out)? time zone)?$/.exec(type);
  const base = parsed?.[1] ?? "";
  const sizes = (parsed?.[2] ?? "").split(",").filter(Boolean).map(Number);
  return Object.hasOwn(rules, base)
    ? rules[base]?.(text, { base, sizes, keepsZone: parsed?.[3] === " with time zone" })
    : undefined;
}

/** How to write a value of this type, for a refusal by PostgreSQL. Empty: nothing to add. */
export function howToWrite(type: string): string {
  if (type.endsWith("[]")) return " Write a list as PostgreSQL does, in a text: {1,2}.";
  if (type === "bytea") return ` ${HEX_BYTES}`;
  if (/^(?:small|big)?int(?:eger)?$/.test(type)) return " Write the digits only.";
  return /^(?:date|timestamp)/.test(type) ? ` ${ISO_DATE}` : "";
}

const HEX_BYTES = String.raw`Write bytes as \x and hexadecimal digits.`;
const ISO_DATE = "Write dates as YYYY-MM-DD.";

const rules: Readonly<Record<string, (text: string, type: ColumnType) => string | undefined>> = {
  // PostgreSQL takes any other text as its characters, and so base64 as well.
  bytea: (text) =>
    text === "" || text.startsWith(String.raw`\x`) ? undefined : `It is no list of bytes. ${HEX_BYTES}`,
  real: (text) => roundedFloat(text, { exact: 6, printed: 9, round: Math.fround }),
  "double precision": (text) => roundedFloat(text, { exact: 15, printed: 17, round: Number }),
  numeric: (text, { sizes: [precision, scale = 0] }) =>
    precision !== undefined && decimalsOf(text) > scale ? `It has more than ${scale} decimals.` : undefined,
  money: (text) => tooFine(text, 2, "cents"),
  "character varying": (text, { sizes: [chars = Infinity] }) =>
    text.length > chars && Array.from(text).length > chars ? `It is longer than ${chars} characters.` : undefined,
  jsonb: (text) => {
    const name = nameTwice(text);
    return name === undefined ? undefined : `An object in it has the name ${storable(name, 63)} twice.`;
  },
  interval: (text, { sizes: [digits = 6] }) => tooFine(text, digits, "a second"),
  date: wrongTime,
  time: wrongTime,
  timestamp: wrongTime,
};

/**
 * A number that a float column would round. Up to `exact` digits come back as they were; `printed` digits are what programs
 * write to be read back exactly.
 */
function roundedFloat(
  text: string,
  { exact, printed, round }: { exact: number; printed: number; round: (value: number) => number },
): string | undefined {
  const [, whole = "", decimals = ""] = /^\s*[+-]?(\d*)\.?(\d*)(?:e[+-]?\d+)?\s*$/i.exec(text) ?? [];
  const digits = (whole + decimals).replace(/^0+/, "").replace(/0+$/, "").length;
  const value = round(Number(text));
  const isRoundedInteger =
    digits > exact &&
    /^\s*[+-]?\d+\s*$/.test(text) &&
    Number.isFinite(value) &&
    BigInt(value) !== BigInt(text.trim().replace("+", ""));
  return digits > printed || isRoundedInteger ? "It has more digits than the column keeps." : undefined;
}

/** Decimals of a number, without zeros at the end; 0 when it has none or the text is no number. */
function decimalsOf(text: string): number {
  const [, whole = "", decimals = "", exponent = "0"] = /^\s*[+-]?(\d*)\.?(\d*)(?:e([+-]?\d+))?\s*$/i.exec(text) ?? [];
  const digits = whole + decimals;
  const zeros = digits.length - digits.replace(/0+$/, "").length;
  return zeros === digits.length ? 0 : decimals.length - zeros - Number(exponent);
}

function tooFine(text: string, digits: number, of: string): string | undefined {
  const [, fraction = ""] = /\.(\d+)/.exec(text) ?? [];
  return fraction.replace(/0+$/, "").length > digits ? `It has more than ${digits} decimals of ${of}.` : undefined;
}

function wrongTime(text: string, { base, sizes: [digits = 6], keepsZone }: ColumnType): string | undefined {
  if (/\b(?:now|today|tomorrow|yesterday)\b/i.test(text)) return "A word such as `now` is no fixed time.";
  if (/(?<![\d./-])\d{1,2}([./-])\d{1,2}\1\d{1,4}(?!\d)/.test(text))
    return `The order of day and month is not clear. ${ISO_DATE}`;
  const [, hours = "0", minutes = "0", seconds = "0", rest = ""] =
    /(\d{1,2}):(\d\d)(?::(\d\d(?:\.\d+)?))?\s*(?:[ap]m\b)?(.*)$/i.exec(text) ?? [];
  if (base === "date") {
    const isMidnight = [hours, minutes, seconds].every((part) => Number(part) === 0);
    return isMidnight ? undefined : "A date has no time of day. Leave it out.";
  }
  const zone = rest.replace(/\b(?:bc|ad)\b/i, "").trim();
  if (!keepsZone && !/^(?:z|utc|gmt|[+-]00?(?::?00)?)?$/i.test(zone))
    return "The column keeps no time zone. Write the time in UTC, without a zone.";
  return tooFine(seconds, digits, "a second");
}
