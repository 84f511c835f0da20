// A stream that can return to an earlier point of its text.

/** The subclass sets `states`: { hidden, cell, memory } of each block, with null for no memory. */
class Rewindable {
  /** Returns what `restore` needs to return to this point, while the memory still has its rows. */
  snapshot() {
    return this.states.map(({ hidden, cell, memory }) => ({
      hidden: hidden.slice(),
      cell: cell.slice(),
      count: memory ? memory.count : 0,
    }));
  }

  restore(snapshot) {
    this.states.forEach(({ hidden, cell, memory }, i) => {
      hidden.set(snapshot[i].hidden);
      cell.set(snapshot[i].cell);
      if (memory) memory.count = snapshot[i].count;
    });
  }
}
