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

/** Drawn with lines, for the sections at the side. */
const sections = {
  home: "M3 9.5 10 3.5l7 6M5 8v8.5h10V8",
  chart: "M3.5 16.5h13M6 13.5v-4M10 13.5v-8M14 13.5v-6",
  list: "M3.5 5h.01M3.5 10h.01M3.5 15h.01M7 5h9.5M7 10h9.5M7 15h9.5",
  file: "M5 2.5h6.5L15 6v11.5H5zM11.5 2.5V6H15",
  receipt: "M5 2.5v15l1.7-1.2 1.6 1.2 1.7-1.2 1.7 1.2 1.6-1.2 1.7 1.2v-15zM8 6.5h4M8 10h4",
  key: "M10.5 13a3.5 3.5 0 1 1-7 0 3.5 3.5 0 0 1 7 0ZM9.6 10.6l6.9-6.9M13.4 6.8l2.3 2.3",
  plug: "M7 2.5v4M13 2.5v4M4.5 6.5h11v3a5.5 5.5 0 0 1-11 0zM10 15v2.5",
  people:
    "M10.5 7a3 3 0 1 1-6 0 3 3 0 0 1 6 0ZM2.5 16.5c0-3 2.2-5 5-5s5 2 5 5M13 4.3a3 3 0 0 1 0 5.4M14.5 11.9c1.8.7 3 2.4 3 4.6",
  screen: "M2.5 3.5h15v10h-15zM7 17h6M10 13.5V17",
  clock: "M17 10a7 7 0 1 1-14 0 7 7 0 0 1 14 0ZM10 6v4l2.5 2",
  person: "M13 7a3 3 0 1 1-6 0 3 3 0 0 1 6 0ZM4 16.5c0-3 2.6-5 6-5s6 2 6 5",
  card: "M2.5 4.5h15v11h-15zM2.5 8.5h15M5.5 12.5h3",
  sliders: "M3 6h7M14 6h3M3 14h3M10 14h7M14 6a2 2 0 1 1-4 0 2 2 0 0 1 4 0ZM10 14a2 2 0 1 1-4 0 2 2 0 0 1 4 0Z",
  door: "M11.5 3h5v14h-5M3 10h9M9 7l3 3-3 3",
  data: "M16 5c0 1.4-2.7 2.5-6 2.5S4 6.4 4 5s2.7-2.5 6-2.5S16 3.6 16 5ZM4 5v10c0 1.4 2.7 2.5 6 2.5s6-1.1 6-2.5V5M4 10c0 1.4 2.7 2.5 6 2.5s6-1.1 6-2.5",
  building: "M4 17V3h8v14M12 8h4v9M2.5 17h15M7 6.5h2M7 10h2M7 13.5h2",
  check: "M17 10a7 7 0 1 1-14 0 7 7 0 0 1 14 0ZM7 10l2 2 4-4.5",
  flow: "M3 5.5v9M3 10h14M13 6l4 4-4 4",
  bolt: "M11 2.5 4.5 11H10l-1 6.5L15.5 9H10z",
  lock: "M4.5 9h11v8h-11zM7 9V6a3 3 0 0 1 6 0v3",
  mail: "M2.5 4.5h15v11h-15zM3 5l7 5.5L17 5",
  warning: "M10 3 2.5 16.5h15zM10 8v4M10 14.4v.1",
  equal: "M4 7.5h12M4 12.5h12",
  bell: "M5 14V9a5 5 0 0 1 10 0v5l1.5 1.5h-13zM8.5 17.5h3",
  arrows: "M4 7h11M12 4l3 3-3 3M16 13H5M8 10l-3 3 3 3",
  layers: "M10 3 2.5 7l7.5 4 7.5-4zM3 10.5l7 3.8 7-3.8M3 13.8l7 3.7 7-3.7",
  shield: "M10 2.5 4 4.8V10c0 3.6 2.5 6.3 6 7.5 3.5-1.2 6-3.9 6-7.5V4.8z",
} as const;

export type SectionIconName = keyof typeof sections;

export const SectionIcon: FC<{ name: SectionIconName }> = ({ name }) => (
  <svg viewBox="0 0 20 20" aria-hidden="true">
    <path d={sections[name]} />
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
