// The page of error codes. The `type` of each problem document links to its row.
import { type ErrorCode, type RetryAdvice, errors, retryOf } from "../core/errors.ts";
import type { HttpContext } from "../http.ts";
import { publicPage } from "./layout.tsx";
import { TextWithCode } from "./text-with-code.tsx";

const retryWords: Readonly<Record<RetryAdvice, string>> = {
  wait: "Yes. Wait for the time in Retry-After, or longer after each attempt.",
  change: "No. The same request is refused until something changes.",
  check: "Perhaps. Look at the current state first.",
};

const statusWords: Readonly<Record<number, string>> = {
  ...{ 400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found" },
  ...{
    405: "Method Not Allowed",
    409: "Conflict",
    410: "Gone",
    413: "Content Too Large",
    415: "Unsupported Media Type",
  },
  ...{ 422: "Unprocessable Content", 429: "Too Many Requests", 499: "Client Closed Request" },
  ...{ 500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout" },
};

const codes = Object.keys(errors) as ErrorCode[];

const Content = () => (
  <>
    <p>
      The API answers a refusal with a problem document (RFC 9457): <code>type</code> links to this page,{" "}
      <code>code</code> is stable, and <code>detail</code> names what was wrong with this request. On the MCP endpoint
      the same codes are in <code>error.data.code</code>, or in <code>_meta["tollgate/refusal"]</code> of a tool's
      result.
    </p>
    <p>
      Every answer has the header <code>X-Request-Id</code>. Send it to support with a question.
    </p>
    <div class="scroll">
      <table>
        <caption>All error codes</caption>
        <thead>
          <tr>
            <th scope="col">Code</th>
            <th scope="col">Status</th>
            <th scope="col">What it means, and what to do</th>
            <th scope="col">Can a retry help?</th>
          </tr>
        </thead>
        <tbody>
          {codes.map((code) => (
            <tr id={code}>
              <th scope="row">
                <a href={`#${code}`}>
                  <code>{code}</code>
                </a>
              </th>
              <td>{`${errors[code].status} ${statusWords[errors[code].status] ?? ""}`}</td>
              <td>
                <TextWithCode text={errors[code].advice} />
              </td>
              <td>{retryWords[retryOf(code)]}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  </>
);

export function showErrorCodes(c: HttpContext): Promise<Response> {
  return publicPage(c, "Error codes", () => <Content />);
}
