// The people who can sign in at the local issuer. They have no passwords: the sign-in page lists them.
import * as z from "zod";

/** A page cannot list more people, so more are a mistake in a test. */
const MAX_PEOPLE = 1_000;

const text = z.string().trim().min(1).max(200);

export const Person = z.strictObject({
  /** Names the person at every provider. Providers put it into their tokens in their own form. */
  sub: z.string().regex(/^[\w.@-]{1,100}$/, "is not made of 1 to 100 letters, digits, dots, dashes, underscores, @"),
  name: text,
  email: z.email(),
  /** A provider that has not verified an address still sends it. */
  emailVerified: z.boolean().default(true),
  /** The organisations that the person belongs to. `id` becomes the tenant claim, so it is a tenant's id or a linked name. */
  organisations: z
    .array(z.strictObject({ id: z.string().regex(/^[\w.-]{1,100}$/), name: text }))
    .max(50)
    .default([]),
  roles: z.array(text).max(50).default([]),
  /** The scopes that the person may use at the API. */
  permissions: z.array(text).max(50).default([]),
});
export type Person = z.output<typeof Person>;
export type PersonInput = z.input<typeof Person>;

/** The people who exist now. Throws a ZodError for a person who is not valid. */
export class People {
  #people: readonly Person[] = [];

  constructor(people: readonly PersonInput[] = []) {
    this.replace(people);
  }

  all(): readonly Person[] {
    return this.#people;
  }

  find(sub: string): Person | undefined {
    return this.#people.find((person) => person.sub === sub);
  }

  replace(people: readonly PersonInput[]): void {
    this.#people = z.array(Person).max(MAX_PEOPLE).parse(people);
  }

  /** Adds a person, or replaces the one with the same `sub`. */
  put(person: unknown): Person {
    const parsed = Person.parse(person);
    this.replace([...this.#people.filter(({ sub }) => sub !== parsed.sub), parsed]);
    return parsed;
  }

  /** Their refresh tokens end, too. */
  remove(sub: string): void {
    this.#people = this.#people.filter((person) => person.sub !== sub);
  }
}

/** First names of the demonstration, one pair for each tenant: the owner and a member. */
const names = [
  ["Ada Keller", "Ben Okafor"],
  ["Chloe Dubois", "Deniz Kaya"],
  ["Elin Berg", "Farid Haddad"],
  ["Grace Liu", "Hugo Martins"],
] as const;

/** The scope of the operator's API. */
export const OPERATOR_SCOPE = "admin:global";

/**
 * The people of the demonstration: an owner and a member of each tenant, one person of the first two tenants, one person of no
 * tenant whose address is not verified, and the operator's people, one for each role. `permissions` are all scopes of the product; members get those that only read.
 */
export function demonstrationPeople(
  tenants: readonly { id: string; name: string }[],
  permissions: readonly string[],
): Person[] {
  const organisations = tenants.map(({ id, name }) => ({ id, name }));
  const reading = permissions.filter((scope) => scope.endsWith(":read"));
  const staff = organisations.flatMap((organisation, index) => {
    const [owner, member] = names[index] ?? [`Owner ${index + 1}`, `Member ${index + 1}`];
    return [
      aPerson(owner, organisation.name, {
        organisations: [organisation],
        roles: ["owner"],
        permissions: [...permissions],
      }),
      aPerson(member, organisation.name, { organisations: [organisation], roles: ["member"], permissions: reading }),
    ];
  });
  const guests = [
    aPerson("Ines Costa", "Costa Consulting", {
      organisations: organisations.slice(0, 2),
      roles: ["developer"],
      permissions: [...permissions],
    }),
    aPerson("Jonas Weber", "Elsewhere", { emailVerified: false }),
  ];
  const operators = Object.entries({ "Vera Novak": "viewer", "Sam Oduya": "support", "Olga Lind": "admin" }).map(
    ([name, role]) => aPerson(name, "Tollgate Operator", { roles: [role], permissions: [OPERATOR_SCOPE] }),
  );
  return [...staff, ...guests, ...operators];
}

function aPerson(name: string, company: string, more: Partial<z.input<typeof Person>>): Person {
  const [first = name] = slug(name).split("-");
  const email = `${first}@${slug(company)}.example`;
  return Person.parse({ sub: email, name, email, ...more });
}

/** A part of a host name. A name without Latin letters has none, so it gets a common one. */
function slug(words: string): string {
  const latin = words.toLowerCase().replaceAll(/[^a-z0-9]+/g, "-");
  return latin.replaceAll(/^-|-$/g, "") || "company";
}
