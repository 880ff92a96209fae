// What is around the content of a page: the header, the navigation of the reader's role, and the footer. Four frames: the public
// site, a page with one task, the pages of a customer, and those of the operator.
import type { Child, FC } from "hono/jsx";
import { config } from "../../core/app-config.ts";
import { Mark, SectionIcon, type SectionIconName } from "./icon.tsx";

const { product } = config;

export interface Section {
  href: string;
  text: string;
  /** Beside the text, where the sections are at the side. */
  icon?: SectionIconName;
}

/** Sections with a heading of their own. `heading` undefined: the first ones. */
export interface SectionGroup {
  heading?: string;
  sections: readonly Section[];
}

export type Frame =
  /** The public site, the same for everyone. `current`: the path of the link that is this page. */
  | { kind: "site"; current?: string }
  /** A page with one task, without links that lead away: a sign-in, a consent, an error. */
  | { kind: "focus" }
  | SidedFrame;

/** The pages of a customer or of the operator, with the sections at the side. */
export interface SidedFrame {
  kind: "sided";
  /** Names the sections for a screen reader: `Account`, `Operator`. */
  label: string;
  /** Beside the product's name: the organisation. */
  where: { text: string; href?: string };
  /** Only the sections that the person may open. */
  groups: readonly SectionGroup[];
  /** The `href` of this page's section. */
  current: string;
  /** The signed-in person, as they know themselves. */
  person: string;
  /** Links of the person's menu, above the sign-out. */
  menu?: readonly Section[];
  /** The form that signs the person out. Default: `/sign-out`. Null: the person has not signed in here. */
  signOut?: string | null;
  /** Above every page, such as while an operator acts for a customer. */
  banner?: Child;
}

const siteLinks: readonly Section[] = [
  { href: "/#tools", text: "Tools" },
  { href: "/#plans", text: "Plans" },
  { href: "/docs", text: "Docs" },
  { href: "/status", text: "Status" },
];

export const Framed: FC<{ frame: Frame; children?: Child }> = ({ frame, children }) => {
  if (frame.kind === "sided") return <Sided frame={frame}>{children}</Sided>;
  return (
    <body class={frame.kind}>
      <Skip />
      <header class="top">
        <div class="bar">
          <Brand />
          {frame.kind === "site" && (
            <>
              <nav aria-label="Site">
                {siteLinks.map(({ href, text }) => (
                  <a href={href} aria-current={isWithin(frame.current, href) ? "page" : undefined}>
                    {text}
                  </a>
                ))}
              </nav>
              <a class="button end" href="/sign-in">
                Sign in
              </a>
            </>
          )}
        </div>
      </header>
      <main id="content">{frame.kind === "focus" ? <div class="card">{children}</div> : children}</main>
      <Foot />
    </body>
  );
};

/** Whether a page is the one of the link, or below it. */
function isWithin(current: string | undefined, href: string): boolean {
  return current === href || current?.startsWith(`${href}/`) === true;
}

const Sided: FC<{ frame: SidedFrame; children?: Child }> = ({ frame, children }) => {
  const { label, where, groups, current, person, menu = [], signOut = "/sign-out", banner } = frame;
  return (
    <body class="wide">
      <Skip />
      {banner !== undefined && (
        <div class="banner" role="status">
          <div class="bar">{banner}</div>
        </div>
      )}
      <header class="top">
        <div class="bar">
          <Brand />
          {where.href === undefined ? (
            <span class="where">{where.text}</span>
          ) : (
            <a class="where" href={where.href}>
              {where.text}
            </a>
          )}
          <details class="menu end">
            <summary>
              <span class="avatar" aria-hidden="true">
                {initialOf(person)}
              </span>
              <span class="who">{person}</span>
            </summary>
            <div>
              {/* In full: the summary has no room for a long address. */}
              <p>{person}</p>
              {menu.map(({ href, text }) => (
                <a href={href}>{text}</a>
              ))}
              {signOut !== null && (
                <form method="post" action={signOut}>
                  <button class="full">Sign out</button>
                </form>
              )}
            </div>
          </details>
        </div>
      </header>
      <div class="sided">
        <nav class="sections" aria-label={label}>
          <ul>
            {groups.map(({ heading, sections }) => (
              <li>
                {heading !== undefined && <span class="group">{heading}</span>}
                <ul>
                  {sections.map(({ href, text, icon }) => (
                    <li>
                      <a href={href} aria-current={href === current ? "page" : undefined}>
                        {icon !== undefined && <SectionIcon name={icon} />}
                        {text}
                      </a>
                    </li>
                  ))}
                </ul>
              </li>
            ))}
          </ul>
        </nav>
        <main id="content">{children}</main>
      </div>
      <Foot />
    </body>
  );
};

/** The letter that stands for a person where there is no room for the name. */
function initialOf(person: string): string {
  return (/[\p{L}\p{N}]/u.exec(person)?.[0] ?? "?").toUpperCase();
}

const Skip: FC = () => (
  <a class="skip" href="#content">
    Skip to the content
  </a>
);

const Brand: FC = () => (
  <a class="brand" href="/">
    <Mark />
    <span>{product.name}</span>
  </a>
);

const Foot: FC = () => (
  <footer class="foot">
    <div class="bar">
      <span>{product.name}</span>
      <span class="end">
        <a href={product.supportUrl}>Support</a>
        <a href={product.termsUrl}>Terms</a>
        <a href={product.privacyUrl}>Privacy</a>
      </span>
    </div>
  </footer>
);
