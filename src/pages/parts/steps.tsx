// The steps of work that runs in the background, with the state of each.
import type { FC } from "hono/jsx";
import { Icon } from "../layout/icon.tsx";

export interface StepProps {
  title: string;
  status: "pending" | "running" | "retrying" | "done";
  /** Why Tollgate retries. */
  note?: string | null | undefined;
}

const words = { pending: "not begun", running: "running", retrying: "retrying", done: "done" } as const;

export const Steps: FC<{ steps: readonly StepProps[] }> = ({ steps }) => (
  <ol class="steps">
    {steps.map(({ title, status, note }) => (
      <li class={status}>
        <Icon name={status} />
        <span>
          {title} <span class="sr-only">({words[status]})</span>
          {note !== undefined && note !== null && <small>{note}</small>}
        </span>
      </li>
    ))}
  </ol>
);
