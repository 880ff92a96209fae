// Code in a page: a text whose parts in backticks are code, and a text to paste elsewhere with a button that copies it. Without
// script the button is hidden, and the text can be selected.
import type { FC } from "hono/jsx";

export const TextWithCode: FC<{ text: string }> = ({ text }) => (
  <>{text.split("`").map((part, index) => (index % 2 === 1 ? <code>{part}</code> : part))}</>
);

export const Copyable: FC<{ text: string; caption?: string }> = ({ text, caption }) => (
  <figure class="copyable">
    {caption !== undefined && <figcaption>{caption}</figcaption>}
    <pre tabindex={0}>
      <code>{text}</code>
    </pre>
    <button type="button" class="tiny" data-copy="">
      Copy
    </button>
  </figure>
);
