// The API reference: the OpenAPI description as a page, and the description itself.
import type { FC } from "hono/jsx";
import { ERRORS_PATH, type HttpContext, type Route, publicForMinutes } from "../../http.ts";
import { publicPage } from "../layout/layout.tsx";
import { type ApiResponse, type JsonSchema, type OpenApi, type Operation, openApi } from "../openapi.ts";
import { TextWithCode } from "../parts/code.tsx";

/** The description, which is the same for the life of an isolate. */
let described: { publicUrl: string; document: OpenApi; json: string } | undefined;

function describe(c: HttpContext, routes: readonly Route[]): { document: OpenApi; json: string } {
  const publicUrl = c.env.PUBLIC_URL;
  if (described?.publicUrl !== publicUrl) {
    const document = openApi(routes, publicUrl);
    described = { publicUrl, document, json: JSON.stringify(document) };
  }
  return described;
}

/** Tools on other sites may read it. */
export function showOpenApi(c: HttpContext, routes: readonly Route[]): Response {
  return c.body(describe(c, routes).json, 200, {
    ...publicForMinutes,
    "content-type": "application/json",
    "access-control-allow-origin": "*",
  });
}

export function showApiReference(c: HttpContext, routes: readonly Route[]): Promise<Response> {
  const lead = "Every endpoint, with who may use it, what it takes and what it answers.";
  return publicPage(c, { title: "API reference", lead }, () => <Reference document={describe(c, routes).document} />);
}

interface Listed {
  method: string;
  path: string;
  operation: Operation;
}

const Reference: FC<{ document: OpenApi }> = ({ document }) => {
  const listed = Object.entries(document.paths).flatMap(([path, item]) =>
    Object.entries(item).map(([method, operation]): Listed => ({ method: method.toUpperCase(), path, operation })),
  );
  return (
    <>
      <p>
        Base address: <code>{document.servers[0]?.url}</code>. Tools read <a href="/openapi.json">/openapi.json</a>.
      </p>
      <ul>
        {document.info.description.split(/(?<=\.) /).map((sentence) => (
          <li>
            <TextWithCode text={sentence} />
          </li>
        ))}
      </ul>
      {document.tags.map(({ name, description }) => (
        <section>
          <h2>{name}</h2>
          <p>{description}</p>
          {listed
            .filter(({ operation }) => operation.tags.includes(name))
            .map((each) => (
              <Endpoint {...each} document={document} />
            ))}
        </section>
      ))}
    </>
  );
};

const Endpoint: FC<Listed & { document: OpenApi }> = ({ method, path, operation, document }) => (
  <article id={operation.operationId}>
    <h3>
      <a href={`#${operation.operationId}`}>
        <code>
          <span class="method">{method}</span> {path}
        </code>
      </a>
    </h3>
    <p>
      <TextWithCode text={`${operation.summary}. ${operation.description ?? ""}`} />
    </p>
    <p>
      Credential: <Credentials operation={operation} document={document} />
    </p>
    {operation["x-permission"] === undefined ? null : (
      <p>
        Permission: <code>{operation["x-permission"]}</code>. Roles: {operation["x-roles"]?.join(", ")}.
      </p>
    )}
    <Parameters operation={operation} />
    {Object.entries(operation.requestBody?.content ?? {}).map(([type, { schema }]) => (
      <>
        <h4>
          Body{operation.requestBody?.required === false ? " (optional)" : ""}: <code>{type}</code>
        </h4>
        <Fields schema={schema} />
      </>
    ))}
    <h4>Answers</h4>
    <Answers responses={operation.responses} />
  </article>
);

const Credentials: FC<{ operation: Operation; document: OpenApi }> = ({ operation, document }) => {
  const names = operation.security.flatMap((alternative) => Object.keys(alternative));
  const isOpen = operation.security.some((alternative) => Object.keys(alternative).length === 0);
  const schemes = names.flatMap((name) => document.components.securitySchemes[name]?.["description"] ?? []);
  const text = [...(isOpen ? ["None."] : []), ...schemes].join(" Or: ");
  return <TextWithCode text={text} />;
};

const Parameters: FC<{ operation: Operation }> = ({ operation: { operationId, parameters } }) =>
  parameters.length === 0 ? null : (
    // A region that scrolls must be reachable with the keyboard.
    <div class="scroll" role="region" aria-label={`Parameters of ${operationId}`} tabindex={0}>
      <table>
        <caption>Parameters</caption>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">In</th>
            <th scope="col">Value</th>
          </tr>
        </thead>
        <tbody>
          {parameters.map((parameter) => (
            <tr>
              <th scope="row">
                <code>{parameter.name}</code>
                {parameter.required ? " (required)" : ""}
              </th>
              <td>{parameter.in}</td>
              <td>
                {typeOf(parameter.schema)} {parameter.description ?? ""}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );

const Answers: FC<{ responses: Operation["responses"] }> = ({ responses }) => (
  <ul>
    {Object.entries(responses).map(([status, response]) => (
      <li>
        <strong>{status}</strong> <Outcome response={response} />
      </li>
    ))}
  </ul>
);

const Outcome: FC<{ response: ApiResponse }> = ({ response }) => {
  const [type, content] = Object.entries(response.content ?? {})[0] ?? [];
  if (type === "application/problem+json") return <Codes codes={response.description.split(", ")} />;
  return (
    <>
      {response.description} {type === undefined ? null : <code>{type}</code>}
      {content === undefined ? null : <Fields schema={content.schema} />}
    </>
  );
};

/** Error codes, each with a link to its row on the page of error codes. */
const Codes: FC<{ codes: readonly string[] }> = ({ codes }) => (
  <>
    {codes.map((code, index) => (
      <>
        {index === 0 ? "" : ", "}
        <a href={`${ERRORS_PATH}#${code}`}>
          <code>{code}</code>
        </a>
      </>
    ))}
  </>
);

/** Deeper fields are in the description for tools. */
const MAX_DEPTH = 3;

/** The fields of a schema as a list; alternatives one after the other. */
const Fields: FC<{ schema: JsonSchema; depth?: number }> = ({ schema, depth = 0 }) => {
  const inner = innermost(schema);
  const alternatives = inner.anyOf?.filter(isObject) ?? [];
  if (depth >= MAX_DEPTH) return null;
  if (alternatives.length > 1)
    return (
      <ol>
        {alternatives.map((alternative) => (
          <li>
            One of these: <Fields schema={alternative} depth={depth + 1} />
          </li>
        ))}
      </ol>
    );
  const properties = Object.entries(inner.properties ?? alternatives[0]?.properties ?? {});
  if (properties.length === 0) return null;
  return (
    <ul>
      {properties.map(([name, property]) => (
        <li>
          <code>{name}</code>
          {inner.required?.includes(name) === true ? "" : " (optional)"}: {typeOf(property)}
          {typeof property === "object" ? <Fields schema={property} depth={depth + 1} /> : null}
        </li>
      ))}
    </ul>
  );
};

/** The items of a list, and the value of something that may be null. */
function innermost(schema: JsonSchema): JsonSchema {
  const { items } = schema;
  if (typeof items === "object" && !Array.isArray(items)) return innermost(items);
  const others = schema.anyOf?.filter((each) => typeof each !== "object" || each.type !== "null");
  const [only] = others ?? [];
  return others?.length === 1 && typeof only === "object" ? innermost(only) : schema;
}

function isObject(schema: JsonSchema | boolean): schema is JsonSchema {
  return typeof schema === "object" && schema.properties !== undefined;
}

/** A schema's type in words. */
function typeOf(schema: JsonSchema | boolean): string {
  if (typeof schema === "boolean") return "any value";
  if (schema.enum !== undefined) return `one of ${schema.enum.map((value) => JSON.stringify(value)).join(", ")}`;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array")
    return typeof schema.items === "object" && !Array.isArray(schema.items)
      ? `list of ${typeOf(schema.items)}`
      : "list";
  if (schema.type === "object") return "object";
  const bounds = [
    schema.minimum === undefined || schema.minimum <= Number.MIN_SAFE_INTEGER ? "" : `at least ${schema.minimum}`,
    schema.maximum === undefined || schema.maximum >= Number.MAX_SAFE_INTEGER ? "" : `at most ${schema.maximum}`,
    schema.maxLength === undefined ? "" : `at most ${schema.maxLength} characters`,
    schema.default === undefined ? "" : `default ${JSON.stringify(schema.default)}`,
  ].filter((text) => text !== "");
  const type = Array.isArray(schema.type) ? schema.type.join(" or ") : (schema.type ?? "any value");
  const base = [type, ...(schema.format === undefined ? [] : [`(${schema.format})`])].join(" ");
  return [base, ...bounds].join(", ");
}
