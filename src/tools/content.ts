// The content of a tool's answer: blocks of text, images, audio, links and resources, as MCP has them. A tool writes bytes or
// base64; this file checks each block and gives it the form in which it is sent and stored.
//
// Invariants: every block that leaves is one that every client of the newest revision can read; a link leads to an https page or
// to a URI of the server's own; an answer beyond `MAX_RESULT_BYTES` is refused before it is encoded.
import * as z from "zod";
import type { ContentBlock } from "../core/call.ts";
import { AppError } from "../core/errors.ts";
import { utf8Bytes } from "../core/text/document-path.ts";
import type { ToolFailure, ToolResult } from "./tool.ts";

/** Far more than a model can use. A result crosses an RPC and a JSON encoder, which hold several copies of it. */
export const MAX_RESULT_BYTES = 1_048_576;
/** More than any client shows. */
const MAX_BLOCKS = 100;
const MAX_URI_CHARS = 2_000;

/** Who a block is for, and how much it matters: 1 is needed, 0 is optional. */
const Annotations = z.strictObject({
  audience: z
    .array(z.enum(["user", "assistant"]))
    .min(1)
    .optional(),
  priority: z.number().min(0).max(1).optional(),
  lastModified: z.iso.datetime({ offset: true }).optional(),
});

const type = String.raw`[a-z0-9][a-z0-9!#$&^_.+-]*`;
const MediaType = z
  .string()
  .max(200)
  .regex(new RegExp(`^${type}/${type}(?:; ?${type}=[^;\r\n]+)*$`, "i"), {
    error: "must be a media type, such as image/png",
  });
const mediaOf = (kind: string) =>
  MediaType.refine((given) => given.toLowerCase().startsWith(`${kind}/`), `must be of ${kind}/*`);

/** A pattern without groups: a megabyte must not need a stack. */
const Base64 = z
  .string()
  .min(1, "must not be empty")
  .refine((text) => text.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(text), "must be base64 with its padding");

/** Schemes that lead somewhere other than to this server, or that a client could run. Links have `https:` instead. */
const foreignSchemes = new Set(
  ["http", "file", "data", "javascript", "vbscript", "blob", "about", "ftp", "ws", "wss"].map((name) => `${name}:`),
);
/** Whether a URI is an https URL or one of the server's own, whose scheme its operator has chosen. */
export function isLinkable(uri: string): boolean {
  if (uri.length > MAX_URI_CHARS || !URL.canParse(uri)) return false;
  const { protocol, hostname } = new URL(uri);
  return protocol === "https:" ? hostname !== "" : !foreignSchemes.has(protocol);
}
const Uri = z.string().refine(isLinkable, "must be an https URL or a URI with a scheme of your own");

const about = { mimeType: MediaType.optional() };
const ResourceContents = z.union([
  z.strictObject({ uri: Uri, ...about, text: z.string() }),
  z.strictObject({ uri: Uri, ...about, blob: Base64 }),
]);

const annotations = Annotations.optional();
/** A block in the form in which it is sent. */
export const SentBlock: z.ZodType<ContentBlock> = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text"), text: z.string(), annotations }),
  z.strictObject({ type: z.literal("image"), data: Base64, mimeType: mediaOf("image"), annotations }),
  z.strictObject({ type: z.literal("audio"), data: Base64, mimeType: mediaOf("audio"), annotations }),
  z.strictObject({
    type: z.literal("resource_link"),
    uri: Uri,
    name: z.string().min(1).max(200),
    title: z.string().max(200).optional(),
    description: z.string().max(2_000).optional(),
    ...about,
    size: z.int().min(0).optional(),
    annotations,
  }),
  z.strictObject({ type: z.literal("resource"), resource: ResourceContents, annotations }),
]) as z.ZodType<ContentBlock>;

type Block<Type extends ContentBlock["type"]> = Extract<ContentBlock, { type: Type }>;

/** A block as a tool writes it: bytes, or base64. */
export type WrittenBlock =
  | Block<"text">
  | Block<"resource_link">
  | (Omit<Block<"image">, "data"> & { data: string | Uint8Array })
  | (Omit<Block<"audio">, "data"> & { data: string | Uint8Array })
  | (Omit<Block<"resource">, "resource"> & {
      resource: { uri: string; mimeType?: string | undefined } & ({ text: string } | { blob: string | Uint8Array });
    });

/**
 * The content of a result: its text, then its blocks. Without any text the data is sent as JSON, for clients that read no structured
 * content. Throws when a block is not one that clients can read; the message names the block and its member, never a value.
 */
export function contentOf(result: ToolResult<unknown> | ToolFailure): ContentBlock[] {
  if ("isError" in result) return [{ type: "text", text: result.text }];
  const { content = [], data } = result;
  const hasText = content.some((block) => block.type === "text");
  const text = result.text ?? (hasText ? undefined : JSON.stringify(data));
  const first: ContentBlock[] = text === undefined ? [] : [{ type: "text", text }];
  return content.length === 0 ? first : [...first, ...sentBlocks(content)];
}

/** The blocks in the form in which they are sent. Throws like `contentOf`. */
export function sentBlocks(written: readonly WrittenBlock[]): ContentBlock[] {
  if (written.length > MAX_BLOCKS)
    throw new AppError("tool_failed", `content has ${written.length} blocks: use ${MAX_BLOCKS} at most`);
  const bytes = written.reduce((sum, block) => sum + encodedBytes(bytesOf(block)), 0);
  if (bytes > MAX_RESULT_BYTES) throw new AppError("result_too_large");
  return written.map((block, index) => {
    const { data, error } = SentBlock.safeParse(encoded(block));
    if (data !== undefined) return data;
    const problems = error.issues.map(({ path, message }) => `${[`content[${index}]`, ...path].join(".")} ${message}`);
    throw new AppError("tool_failed", problems.join("; "));
  });
}

/** Size of a result in UTF-8: its texts, its other blocks as JSON, and its data as JSON. */
export function resultBytes(content: readonly ContentBlock[], data: unknown): number {
  const text = [...content.map(textOf), data === undefined ? "" : JSON.stringify(data)].join("");
  // No UTF-16 unit takes more than three bytes: most results are small enough without a count.
  const most = text.length * 3;
  return most <= MAX_RESULT_BYTES ? most : utf8Bytes(text);
}

function textOf(block: ContentBlock): string {
  return block.type === "text" ? block.text : JSON.stringify(block);
}

function bytesOf(block: WrittenBlock): Uint8Array | string | undefined {
  if (block.type === "image" || block.type === "audio") return block.data;
  return block.type === "resource" && "blob" in block.resource ? block.resource.blob : undefined;
}

function encodedBytes(data: Uint8Array | string | undefined): number {
  return data instanceof Uint8Array ? Math.ceil(data.byteLength / 3) * 4 : (data?.length ?? 0);
}

function encoded(block: WrittenBlock): unknown {
  if (block.type === "image" || block.type === "audio") return { ...block, data: base64(block.data) };
  if (block.type !== "resource" || !("blob" in block.resource)) return block;
  return { ...block, resource: { ...block.resource, blob: base64(block.resource.blob) } };
}

function base64(data: string | Uint8Array): string {
  return typeof data === "string"
    ? data
    : Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString("base64");
}
