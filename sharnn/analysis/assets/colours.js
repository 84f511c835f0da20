// Colours follow the theme; every scale is one hue that gets stronger, or two around a middle.

const STEPS = 16;
const EVEN = STEPS; // the middle of the weights' palette: an even share

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
    const strongest = Number(read("--strongest"));
    const shade = (hue, share) => (share > 0 ? `rgba(${hue}, ${(share * strongest).toFixed(3)})` : "");
    const ramp = Array.from({ length: STEPS + 1 }, (_, level) => level / STEPS);
    this.bits = ramp.map((share) => shade(this.blue, share));
    this.weights = [
      ...ramp.slice(1).reverse().map((share) => shade(this.less, 0.35 * share)),
      ...ramp.map((share) => shade(this.more, share)),
    ];
  }
}

/** Level in the bits' palette: full strength at 8 bits, what guessing costs. */
function bitsLevel(bits) {
  return Number.isNaN(bits) ? 0 : Math.round(STEPS * Math.min(1, bits / 8));
}

/** Level in the weights' palette, on a logarithmic scale up to the head's largest. */
function weightLevel(relative, largest) {
  const log = Math.log2(Math.max(relative, 2 ** -20));
  const share = log >= 0 ? log / Math.max(1, Math.log2(largest)) : log / 6;
  return EVEN + Math.round(STEPS * Math.min(1, Math.max(-1, share)));
}

// Made once: a formatter takes longer to make than all else that a choice does.
const grouped = new Intl.NumberFormat("en");
const thousands = (number) => grouped.format(number);

/** A number with as many digits as it deserves. */
function short(number) {
  const size = Math.abs(number);
  if (size >= 100) return thousands(Math.round(number));
  if (size >= 10) return number.toFixed(1);
  return size >= 0.01 || size === 0 ? number.toFixed(2) : number.toPrecision(2);
}

function percent(share) {
  const value = 100 * share;
  return `${value >= 10 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(1) : value.toPrecision(1)} %`;
}

function followTheme(chosen, changed) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const around = () => {
    try {
      // The page that this one lies in: a Jupyter Book, JupyterLab, Colab.
      const { documentElement: root, body } = window.parent.document;
      if (root.dataset.theme && window.parent !== window) return root.dataset.theme;
      if (body.dataset.jpThemeLight) return body.dataset.jpThemeLight === "true" ? "light" : "dark";
      if (root.getAttribute("theme")) return root.getAttribute("theme");
    } catch { /* another origin */ }
    return dark.matches ? "dark" : "light";
  };
  let now = null;
  const apply = () => {
    const theme = chosen.value === "auto" ? around() : chosen.value;
    if (theme === now) return;
    now = theme;
    document.documentElement.dataset.theme = theme;
    changed();
  };
  chosen.addEventListener("change", apply);
  dark.addEventListener("change", apply);
  try {
    if (window.parent !== window) {
      const watcher = new MutationObserver(apply);
      const { documentElement: root, body } = window.parent.document;
      watcher.observe(root, { attributes: true });
      watcher.observe(body, { attributes: true });
    }
  } catch { /* another origin */ }
  apply();
}
