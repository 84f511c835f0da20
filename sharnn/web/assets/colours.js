// Colours for the current theme. A scale is one hue of increasing strength, or two hues that diverge.

const STEPS = 16;
const EVEN = STEPS; // middle of the weights' palette: an even share

class Colours {
  constructor() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    this.front = read("--front");
    this.soft = read("--soft");
    this.line = read("--line");
    this.more = read("--more");
    this.less = read("--less");
    this.blue = read("--bits");
    const [strongest, curve] = ["--strongest", "--curve"].map((name) => Number(read(name)));
    const shade = (hue, share) => (share > 0 ? `rgba(${hue}, ${(share ** curve * strongest).toFixed(3)})` : "");
    const ramp = Array.from({ length: STEPS + 1 }, (_, level) => level / STEPS);
    this.bits = ramp.map((share) => shade(this.blue, share));
    this.weights = [
      ...ramp.slice(1).reverse().map((share) => shade(this.less, 0.35 * share)),
      ...ramp.map((share) => shade(this.more, share)),
    ];
    this.signed = [
      ...ramp.slice(1).reverse().map((share) => shade(this.less, share)),
      ...ramp.map((share) => shade(this.more, share)),
    ];
  }
}

/** Returns the level in the bits' palette: full strength at 8 bits, the cost of a random guess. */
function bitsLevel(bits) {
  return Number.isNaN(bits) ? 0 : Math.round(STEPS * Math.min(1, bits / 8));
}

/** Returns the level in the weights' palette, on a logarithmic scale up to the head's largest. */
function weightLevel(relative, largest) {
  const log = Math.log2(Math.max(relative, 2 ** -20));
  const share = log >= 0 ? log / Math.max(1, Math.log2(largest)) : log / 6;
  return EVEN + Math.round(STEPS * Math.min(1, Math.max(-1, share)));
}

/** Returns the theme of the page around this frame, or null: a Jupyter Book, JupyterLab or Colab. */
function surroundingTheme() {
  if (window.parent === window) return null;
  try {
    const { documentElement: root, body } = window.parent.document;
    if (root.dataset.theme) return root.dataset.theme;
    if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "true" ? "light" : "dark";
    return root.getAttribute("theme");
  } catch {
    return null; // another origin
  }
}

/** Applies the theme from a select element, or that of the page around the frame if there is none or it
 *  is at "auto", and calls `changed` after each change of theme. If the page around has a theme, the
 *  select element is hidden. */
function followTheme(select, changed) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let current = null;
  const apply = () => {
    const around = surroundingTheme();
    if (select) select.labels[0].hidden = around !== null;
    const chosen = select && !select.labels[0].hidden && select.value !== "auto" ? select.value : null;
    const theme = chosen ?? around ?? (dark.matches ? "dark" : "light");
    if (theme === current) return;
    current = theme;
    document.documentElement.dataset.theme = theme;
    changed();
  };
  select?.addEventListener("change", apply);
  dark.addEventListener("change", apply);
  try {
    if (window.parent !== window) {
      const observer = new MutationObserver(apply);
      const { documentElement: root, body } = window.parent.document;
      observer.observe(root, { attributes: true });
      observer.observe(body, { attributes: true });
    }
  } catch { /* another origin */ }
  apply();
}
