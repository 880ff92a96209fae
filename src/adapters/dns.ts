// TXT records of the DNS, over HTTPS (RFC 8484's endpoint in its JSON form). DNS_URL names the resolver. The resolver's word counts:
// it is the operator's choice, and the connection to it has TLS.
import * as z from "zod";
import { OutsideFailure } from "../core/errors.ts";
import { fetchFromProvider } from "./provider-http.ts";

/** The type TXT in answers. Others, such as the CNAMEs on the way, are no proof. */
const TXT = 16;
/** The name does not exist (RFC 1035, section 4.1.1). */
const NAME_ERROR = 3;

const Answer = z.object({
  Status: z.int(),
  Answer: z.array(z.object({ type: z.int(), data: z.string() })).default([]),
});

/** The texts of a name's TXT records: none for a name that does not exist. Throws `OutsideFailure` when the resolver fails. */
export async function txtRecords({ DNS_URL }: Pick<Env, "DNS_URL">, name: string): Promise<string[]> {
  const url = `${DNS_URL}?name=${encodeURIComponent(name)}&type=TXT`;
  let answer: z.infer<typeof Answer>;
  try {
    const response = await fetchFromProvider(url, { headers: { accept: "application/dns-json" } });
    answer = Answer.parse(await response.json());
  } catch {
    throw new OutsideFailure("internal", "The DNS resolver did not answer", "temporary");
  }
  if (answer.Status === NAME_ERROR) return [];
  if (answer.Status !== 0)
    throw new OutsideFailure("internal", `The DNS resolver answered with status ${answer.Status}`, "temporary");
  return answer.Answer.filter(({ type }) => type === TXT).map(({ data }) => textOf(data));
}

/** A record's text. Records of more than 255 bytes are several quoted strings, which belong together. */
function textOf(data: string): string {
  const strings = [...data.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, string = ""]) =>
    string.replaceAll(/\\(.)/g, "$1"),
  );
  return strings.length === 0 ? data : strings.join("");
}
