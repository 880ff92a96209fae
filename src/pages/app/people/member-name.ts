// A member as other people know them.
import type { MemberSummary } from "../../../identity/members/members-store.ts";

/** The member's name for people: the address before the name, which two members may share. */
export function memberName({ email, name, id }: Pick<MemberSummary, "email" | "name" | "id">): string {
  return email ?? name ?? id;
}

/** The names of members by their ids. */
export function memberNames(members: readonly MemberSummary[]): (id: string) => string | undefined {
  const names = new Map(members.map((member) => [member.id, memberName(member)]));
  return (id) => names.get(id);
}
