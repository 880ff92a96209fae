// Components of several of the operator's pages.
import type { FC } from "hono/jsx";

/** The choice between what is open and everything. */
export const AllToggle: FC<{ path: string; isAll: boolean; open: string; every: string }> = ({
  path,
  isAll,
  open,
  every,
}) => (
  <nav class="tabs" aria-label="What the list shows">
    <a href={path} aria-current={isAll ? undefined : "page"}>
      {open}
    </a>
    <a href={`${path}?all=true`} aria-current={isAll ? "page" : undefined}>
      {every}
    </a>
  </nav>
);
