// The environment of one request that notes every call of a Durable Object: which method of which binding.

type Namespace = { getByName: (name: string) => object };
const bindings = ["TENANT", "OAUTH_REGISTRY", "SESSIONS"] as const;

/** `env` with objects that add each call of theirs to `calls`, as `BINDING.method`. */
export function countingCalls(env: Env, calls: string[]): Env {
  const counted = bindings.map((binding) => {
    const namespace = env[binding] as unknown as Namespace;
    const counting = Object.assign(Object.create(namespace) as Namespace, {
      getByName: (name: string) =>
        countingStub(namespace.getByName(name), (method) => calls.push(`${binding}.${method}`)),
    });
    return [binding, counting];
  });
  return { ...env, ...(Object.fromEntries(counted) as Partial<Env>) };
}

function countingStub(stub: object, count: (method: string) => void): object {
  return new Proxy(stub, {
    get(target, method) {
      const value: unknown = Reflect.get(target, method);
      if (typeof value !== "function" || typeof method !== "string") return value;
      return (...args: unknown[]): unknown => {
        count(method);
        return (Reflect.get(target, method) as (...given: unknown[]) => unknown)(...args);
      };
    },
  });
}
