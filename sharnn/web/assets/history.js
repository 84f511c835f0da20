// The reader's changes of a text, which can be undone and redone. The browser keeps a history of its own,
// but after a change by a script it would restore parts of an older text.

const TYPING = 1000; // milliseconds without a key after which a new step begins
const STEPS_KEPT = 200;

class TextHistory {
  /**
   * @param field    the text area
   * @param marks    returns what else belongs to the text at the moment
   * @param changed  called with what belonged to a text that is restored
   */
  constructor(field, marks, changed) {
    Object.assign(this, { field, marks, changed });
    this.restart();
    field.addEventListener("keydown", (event) => this.key(event));
    field.addEventListener("beforeinput", (event) => {
      const step = this.stepFor(event);
      if (!step) return;
      event.preventDefault();
      this.move(...step);
    });
    field.addEventListener("input", (event) => {
      const step = this.stepFor(event);
      if (!step) this.add(event.inputType);
      else this.move(...step); // the browser didn't ask first
    });
  }

  /** Returns where an undo or a redo takes a state from, and where it leaves the present one; null for other events. */
  stepFor({ inputType }) {
    const { past, future } = this;
    return { historyUndo: [past, future], historyRedo: [future, past] }[inputType] ?? null;
  }

  /** Makes the text of the field the first one. */
  restart() {
    this.past = [];
    this.future = [];
    this.kind = "";
    this.now = this.state();
  }

  state() {
    const { value: text, selectionStart: start, selectionEnd: end } = this.field;
    return { text, start, end };
  }

  /** Adds the text of the field as a step. Letters that are typed one after the other are one step. */
  add(kind = "") {
    const time = performance.now();
    const joins = /^(insertText|delete|insertComposition)/.test(kind) && kind === this.kind && time - this.time < TYPING;
    if (!joins) this.past.push({ ...this.now, marks: this.marks() });
    this.past.splice(0, this.past.length - STEPS_KEPT);
    this.future.length = 0;
    Object.assign(this, { kind, time, now: this.state() });
  }

  /** Puts another text into the field, as one step. */
  put(text) {
    this.announce("insertReplacementText");
    this.field.value = text;
    this.add();
  }

  /** Lets others prepare for a change by a script as for one by the reader. */
  announce(inputType) {
    this.field.dispatchEvent(new InputEvent("beforeinput", { inputType, cancelable: true }));
  }

  key(event) {
    const { key, shiftKey, ctrlKey, metaKey, altKey, isComposing } = event;
    if (!(ctrlKey || metaKey) || altKey || isComposing) return;
    const letter = key.toLowerCase();
    if (letter !== "z" && !(letter === "y" && ctrlKey)) return;
    event.preventDefault();
    this.announce(letter === "y" || shiftKey ? "historyRedo" : "historyUndo");
  }

  /** Restores the newest of some states, if there is one, and adds the present one to others. */
  move(from, to) {
    if (!from.length && this.field.value === this.now.text) return;
    if (from.length) {
      to.push({ ...this.now, marks: this.marks() });
      this.now = from.pop();
    }
    this.kind = "";
    const { text, start, end, marks } = this.now;
    this.field.value = text;
    this.field.setSelectionRange(start, end);
    this.changed(marks);
  }
}
