// The colour of pages, which the operator chooses for the product and a customer for their own pages. Any colour `#rrggbb` is good:
// this file decides the text on it, and its shade for text and lines on the page's own surfaces.
//
// Invariant: text has a contrast of at least 4.5 to what is behind it (WCAG 2.2, 1.4.3), in light and in dark.

const READABLE = 4.5;
/** Of the shade to the page's surfaces. 4.5 is left where the shade is on a soft background of itself (--accent-soft). */
const SHADE_CONTRAST = 5.4;
/** The surfaces of style.css, the one in each scheme that is nearest to the shade. */
const surfaces = { light: "#ffffff", dark: "#181c26" };
/** On dark the shade is a light one, also where less would do. */
const LEAST_WHITE = 0.45;
/** Between a button and the same button under the pointer. */
const HOVER_STEP = 0.12;

type Channels = readonly [red: number, green: number, blue: number];

function channelsOf(colour: string): Channels {
  const [red, green, blue] = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16));
  return [red ?? 0, green ?? 0, blue ?? 0];
}

/** A part of `colour` and the rest of `other`, which has the share `share`. */
function mix(colour: string, other: string, share: number): string {
  const added = channelsOf(other);
  const mixed = channelsOf(colour).map((value, at) => Math.round(value * (1 - share) + (added[at] ?? 0) * share));
  return `#${mixed.map((value) => value.toString(16).padStart(2, "0")).join("")}`;
}

/** WCAG 2.2, relative luminance. */
function luminance(colour: string): number {
  const [red = 0, green = 0, blue = 0] = channelsOf(colour).map((channel) => {
    const value = channel / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** The contrast of two colours `#rrggbb`, from 1 to 21 (WCAG 2.2, contrast ratio). */
export function contrast(one: string, other: string): number {
  const [dark = 0, light = 0] = [luminance(one), luminance(other)].toSorted((a, b) => a - b);
  return (light + 0.05) / (dark + 0.05);
}

/** The text on a colour: white, or the page's own dark where that is easier to read. Black, where neither is dark enough. */
export function textOn(colour: string): string {
  return ["#ffffff", "#10151f"].find((text) => contrast(text, colour) >= READABLE) ?? "#000000";
}

/** The colour, with as much of `other` as it needs to be read on a surface. */
function shade(colour: string, other: string, { surface, least }: { surface: string; least: number }): string {
  for (let share = least; share < 1; share += 0.05) {
    const shaded = mix(colour, other, share);
    if (contrast(shaded, surface) >= SHADE_CONTRAST) return shaded;
  }
  return other;
}

export interface Colours {
  brand: string;
  /** The text on it. */
  onBrand: string;
  /** Under the pointer. The text on it is the same. */
  strong: string;
  /** For text and lines on the page's surfaces. */
  light: string;
  dark: string;
}

export function coloursOf(brand: string): Colours {
  const onBrand = textOn(brand);
  return {
    ...{ brand, onBrand, strong: mix(brand, onBrand === "#ffffff" ? "#000000" : "#ffffff", HOVER_STEP) },
    light: shade(brand, "#000000", { surface: surfaces.light, least: 0 }),
    dark: shade(brand, "#ffffff", { surface: surfaces.dark, least: LEAST_WHITE }),
  };
}

/** CSS: the tokens that a colour decides. */
export function colourRules(colour: string): string {
  const { brand, onBrand, strong, light, dark } = coloursOf(colour);
  const tokens = [
    ...[`--brand:${brand}`, `--on-brand:${onBrand}`, `--brand-strong:${strong}`],
    `--accent:light-dark(${light},${dark})`,
  ];
  return `:root{${tokens.join(";")}}`;
}
