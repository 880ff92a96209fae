// The names under which customers' providers are on the internet: https://NAME.idp.example. The local issuer is their host. No name
// server knows them, so those who go there ask here for the place.

/** A customer's provider that the local issuer serves. */
export function publicIssuer(name: string): string {
  return `https://${name}.idp.example`;
}

/** Where the local issuer serves this URL; `undefined`: it is the URL of no customer's provider. */
export function servedAt(url: string, issuerUrl: string): string | undefined {
  const { name, rest } = /^https:\/\/(?<name>[a-z0-9-]+)\.idp\.example(?<rest>[/?].*)?$/.exec(url)?.groups ?? {};
  return name === undefined ? undefined : `${issuerUrl}/idp/${name}${rest ?? ""}`;
}
