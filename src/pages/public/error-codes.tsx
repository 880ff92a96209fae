// The page of error codes. The `type` of each problem document links to its row.
import { type ErrorCode, type RetryAdvice, errors, retryOf } from "../../core/errors.ts";
import type { HttpContext } from "../../http.ts";
import { publicPage } from "../layout/layout.tsx";
import { Table } from "../parts/table.tsx";
import { TextWithCode } from "../parts/code.tsx";

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
    <Table
      caption="All error codes"
      hidesCaption
      idOf={(code) => code}
      rows={codes}
      columns={[
        {
          head: "Code",
          isHead: true,
          cell: (code) => (
            <a href={`#${code}`}>
              <code>{code}</code>
            </a>
          ),
        },
        { head: "Status", cell: (code) => `${errors[code].status} ${statusWords[errors[code].status] ?? ""}` },
        { head: "What it means, and what to do", cell: (code) => <TextWithCode text={errors[code].advice} /> },
        { head: "Can a retry help?", cell: (code) => retryWords[retryOf(code)] },
      ]}
    />
  </>
);

export function showErrorCodes(c: HttpContext): Promise<Response> {
  return publicPage(c, { title: "Error codes" }, () => <Content />);
}
