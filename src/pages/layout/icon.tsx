// Pictures of one colour. Each is decoration: the text beside it says the same.
import type { FC } from "hono/jsx";

const paths = {
  done: "M10 1.7a8.3 8.3 0 1 0 0 16.6 8.3 8.3 0 0 0 0-16.6Zm3.9 6.3-4.6 5a1 1 0 0 1-1.4 0L5.8 10.8l1.2-1.2 1.6 1.6 4-4.4Z",
  pending: "M10 1.7a8.3 8.3 0 1 0 0 16.6 8.3 8.3 0 0 0 0-16.6Zm0 1.5a6.8 6.8 0 1 1 0 13.6 6.8 6.8 0 0 1 0-13.6Z",
  running: "M10 1.7a8.3 8.3 0 1 0 8.3 8.3h-1.9A6.4 6.4 0 1 1 10 3.6Z",
  retrying: "M10 1.7a8.3 8.3 0 1 0 0 16.6 8.3 8.3 0 0 0 0-16.6ZM9.1 5h1.8v6.3H9.1Zm0 7.8h1.8v1.9H9.1Z",
} as const;

export const Icon: FC<{ name: keyof typeof paths }> = ({ name }) => (
  <svg viewBox="0 0 20 20" fill="currentColor" aria-hidden="true">
    <path d={paths[name]} />
  </svg>
);

/** The product's mark: a gate. */
export const Mark: FC = () => (
  <svg viewBox="0 0 24 24" width="24" height="24" aria-hidden="true">
    <rect width="24" height="24" rx="6" fill="currentColor" />
    <path d={markPath} fill="none" stroke="#fff" stroke-width="2" stroke-linecap="round" />
  </svg>
);

export const markPath = "M7 17.5V11a5 5 0 0 1 10 0v6.5M12 13v4.5";
