// TXT records and addresses of the DNS, over HTTPS (RFC 8484's endpoint in its JSON form). DNS_URL names the resolver. The resolver's word counts:
// it is the operator's choice, and the connection to it has TLS.
import * as z from "zod";
import { OutsideFailure } from "../core/errors.ts";
import { fetchFromProvider } from "./provider-http.ts";

/** Types in answers. Others, such as the CNAMEs on the way, do not count. */
const types = { A: 1, TXT: 16, AAAA: 28 } as const;
/** The name does not exist (RFC 1035, section 4.1.1). */
const NAME_ERROR = 3;

const Answer = z.object({
  Status: z.int(),
  Answer: z.array(z.object({ type: z.int(), data: z.string() })).default([]),
});

/** The texts of a name's TXT records: none for a name that does not exist. Throws `OutsideFailure` when the resolver fails. */
export async function txtRecords(env: Pick<Env, "DNS_URL">, name: string): Promise<string[]> {
  return (await records(env, name, "TXT")).map(textOf);
}

/** The IPv4 and IPv6 addresses of a name: none for a name that does not exist. Throws `OutsideFailure` when the resolver fails. */
export async function addressesOf(env: Pick<Env, "DNS_URL">, name: string, signal: AbortSignal): Promise<string[]> {
  const found = await Promise.all((["A", "AAAA"] as const).map((type) => records(env, name, type, signal)));
  return found.flat();
}

async function records(
  { DNS_URL }: Pick<Env, "DNS_URL">,
  name: string,
  type: keyof typeof types,
  signal?: AbortSignal,
): Promise<string[]> {
  const url = `${DNS_URL}?name=${encodeURIComponent(name)}&type=${type}`;
  let answer: z.infer<typeof Answer>;
  try {
    const response = await fetchFromProvider(url, { headers: { accept: "application/dns-json" }, signal });
    answer = Answer.parse(await response.json());
  } catch {
    throw new OutsideFailure("internal", "The DNS resolver did not answer", "temporary");
  }
  if (answer.Status === NAME_ERROR) return [];
  if (answer.Status !== 0)
    throw new OutsideFailure("internal", `The DNS resolver answered with status ${answer.Status}`, "temporary");
  return answer.Answer.filter((each) => each.type === types[type]).map(({ data }) => data);
}

/** A record's text. Records of more than 255 bytes are several quoted strings, which belong together. */
function textOf(data: string): string {
  const strings = [...data.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, string = ""]) =>
    string.replaceAll(/\\(.)/g, "$1"),
  );
  return strings.length === 0 ? data : strings.join("");
}
