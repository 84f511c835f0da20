// The reader's text, kept for this tab alone: it is there again after a visit to another page. A browser
// may refuse to keep anything, as in a frame of another origin; then each visit begins with the example.

class KeptText {
  /** Another page, model or example has a text of its own. */
  constructor({ title, name, example }) {
    this.key = ["sharnn", this.place(), title, name, example.text.data].join(" ");
  }

  /** Returns the path of the page, or of the page around its frame. */
  place() {
    try {
      return window.parent.location.pathname;
    } catch {
      return location.pathname; // another origin
    }
  }

  /** Returns what was kept last, or null. */
  get() {
    try {
      return JSON.parse(sessionStorage.getItem(this.key));
    } catch {
      return null;
    }
  }

  /** Keeps something in place of what was kept before; null keeps nothing. */
  set(content) {
    try {
      sessionStorage.removeItem(this.key);
      if (content) sessionStorage.setItem(this.key, JSON.stringify(content));
    } catch { /* refused, or too long */ }
  }
}
