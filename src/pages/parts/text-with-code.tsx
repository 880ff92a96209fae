// A text whose parts in backticks are code.
import type { FC } from "hono/jsx";

export const TextWithCode: FC<{ text: string }> = ({ text }) => (
  <>{text.split("`").map((part, index) => (index % 2 === 1 ? <code>{part}</code> : part))}</>
);
