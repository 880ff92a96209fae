// What a call of the playground has returned: its blocks, its data, its price and receipt, or why it was refused.
import type { FC } from "hono/jsx";
import type { CallOutcome, ContentBlock } from "../../../../core/call.ts";
import type { Tool } from "../../../../tools/tool.ts";
import { bytes, units } from "../../../parts/figures.tsx";
import { Notice } from "../../../parts/notice.tsx";

interface OutcomeProps {
  tool: Tool;
  outcome: CallOutcome;
  ms: number;
  callsPath: string;
}

export const Outcome: FC<OutcomeProps> = ({ tool, outcome, ms, callsPath }) => {
  if (outcome.kind === "asks")
    return (
      <Notice tone="warn">The tool asks a question, which only an agent can show you. Nothing was charged.</Notice>
    );
  if (outcome.kind === "refused") {
    const { message, code } = outcome.refusal;
    return (
      <Notice tone="bad">
        {message} <code>{code}</code>
      </Notice>
    );
  }
  const { content, data, isError, failure, receipt } = outcome;
  return (
    <section id="result">
      <h2>Result of {tool.name}</h2>
      <Notice tone={isError ? "bad" : "good"}>
        {receipt === undefined ? "Nothing was charged. " : `Charged: ${units(receipt.units)}. `}
        {receipt !== undefined && (
          <>
            Receipt <a href={`${callsPath}/${receipt.id}`}>{receipt.id}</a>.{" "}
          </>
        )}
        It took {ms} ms.{failure !== undefined && <code>{failure}</code>}
      </Notice>
      {content.map((block) => (
        <Block block={block} />
      ))}
      {data !== undefined && (
        <>
          <h3>Data</h3>
          <pre tabindex={0}>{JSON.stringify(data, null, 2)}</pre>
        </>
      )}
    </section>
  );
};

/** Bytes are counted: a page loads no picture of a tool. A link is text, because the tool chose where it leads. */
const Block: FC<{ block: ContentBlock }> = ({ block }) => {
  switch (block.type) {
    case "text":
      return <pre tabindex={0}>{block.text}</pre>;
    case "image":
    case "audio":
      return (
        <p>
          {block.mimeType}, {bytesIn(block.data)}
        </p>
      );
    case "resource_link":
      return (
        <p>
          {block.title ?? block.name}: <code>{block.uri}</code>
        </p>
      );
    case "resource":
      return (
        <>
          <p>
            <code>{block.resource.uri}</code>
            {"blob" in block.resource && `, ${bytesIn(block.resource.blob)}`}
          </p>
          {"text" in block.resource && <pre tabindex={0}>{block.resource.text}</pre>}
        </>
      );
    default:
      return block satisfies never;
  }
};

const bytesIn = (base64: string): string => bytes(Math.floor((base64.length * 3) / 4));
