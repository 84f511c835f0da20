// Fields for numbers. An invalid number is refused: a line says why, and the field is marked.

class NumberFields {
  /**
   * @param ids   of the fields; their attributes min, max and step say which numbers are valid
   * @param line  element for the reason
   * @param use   called after each change after which all numbers are valid
   */
  constructor(ids, line, use = () => {}) {
    Object.assign(this, { line, fields: ids.map((id) => $(id)) });
    for (const field of this.fields) {
      field.required = true;
      field.setAttribute("aria-describedby", line.id);
      field.oninput = () => this.check() && use();
    }
    this.check();
  }

  /** Marks the fields with invalid numbers, and returns true if there are none. */
  check() {
    const wrong = this.fields.filter((field) => !field.validity.valid);
    for (const field of this.fields) field.setAttribute("aria-invalid", wrong.includes(field));
    this.line.hidden = !wrong.length;
    this.line.textContent = wrong.map((field) => this.reason(field)).join(" ");
    return !wrong.length;
  }

  /** Returns true if all numbers are valid; otherwise the first invalid one gets the focus. */
  accept() {
    if (this.check()) return true;
    const field = this.fields.find(({ validity }) => !validity.valid);
    field.closest("details")?.setAttribute("open", "");
    field.focus();
    return false;
  }

  reason({ labels, min, max, step }) {
    const name = labels[0].textContent.trim();
    const kind = step === "1" ? "a whole number" : "a number";
    return `${name} must be ${kind} from ${thousands(min)} to ${thousands(max)}.`;
  }
}
