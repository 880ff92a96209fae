// The actions that the audit log of an account can have, in words. Their names are the API's, so that a search on the page and one
// of the API find the same events.
import { acts } from "../../../identity/audit/audit.ts";
import { endpoints } from "../../endpoints.ts";
import type { Option } from "../../parts/form.tsx";

/** Requests that are recorded in an account's own log: its changes, and the downloads of its data. */
const ofAccount =
  /^(?:(?:POST|PUT|PATCH|DELETE) \/(?:admin\/)?api\/tenants\/:tenantId|GET \/(?:admin\/)?api\/tenants\/:tenantId\/(?:export|backups\/|documents\/content)|POST \/(?:api\/invitations\/accept|oauth\/consent)$)/;

const events = [acts.signIn, acts.grantedByAssertion, acts.crossTenant, acts.usedSetupToken, "callTool"];

/** In the order of their words. An act of the operator says so, so that it differs from the same act of the account. */
const options: readonly Option[] = [
  ...Object.entries(endpoints)
    .filter(([route]) => ofAccount.test(route))
    .map(([route, { id }]) => ({
      value: id,
      text: route.includes("/admin/api/") ? `${inWords(id)}, by the operator` : inWords(id),
    })),
  ...events.map((name) => ({ value: name, text: inWords(name) })),
].toSorted((a, b) => a.text.localeCompare(b.text, "en"));

/** The choices of the search. `searched`: an action of the address, which the list may not have. */
export function actionOptions(searched: string | undefined): readonly Option[] {
  const isKnown = searched === undefined || searched === "" || options.some(({ value }) => value === searched);
  return isKnown ? options : [...options, { value: searched, text: inWords(searched) }];
}

/** `Revoke key`, for `revokeOwnKey`. */
export function inWords(action: string): string {
  const words = action
    .replaceAll(/([a-z0-9])([A-Z])/g, "$1 $2")
    .replaceAll(/[._]/g, " ")
    .toLowerCase();
  const plain = words.replace(/\b(?:own|first) /, "");
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}
