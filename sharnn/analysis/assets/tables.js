// What removing remembered positions costs.

/** Fills both tables for watched byte i. */
function fillTables(reading, head, i) {
  const { counts, cuts } = reading;
  $("causes-hint").textContent =
    "Bits more that this byte costs when the head can't see some positions, for this byte alone.";
  const visible = reading.visible[i];
  const row = head.weights(i);
  const sorted = Float32Array.from(row).sort().reverse();
  const held = (weights) => percent(Math.min(1, weights.reduce((sum, weight) => sum + weight, 0)));
  const of = (array, place, columns) => array[i * columns + place];
  const byCount = counts.map((count, place) => [
    count < visible ? thousands(count) : `all ${thousands(visible)}`,
    held(sorted.subarray(0, count)),
    of(head.top, place, counts.length), of(head.chance, place, counts.length),
    of(head.spread, place, counts.length)])
    .filter((_, place) => place === 0 || counts[place - 1] < visible);
  const bands = cuts.length - 1;
  const byDistance = cuts.slice(0, -1)
    .map((near, place) => [near, Math.min(visible, cuts[place + 1] - 1), place])
    .filter(([near]) => near <= visible)
    .map(([near, far, place]) => [
      near === far ? `${near}` : `${thousands(near)} to ${thousands(far)}`,
      held(row.subarray(near - 1, far)), of(head.bands, place, bands)]);
  const all = [...byCount.flatMap((line) => line.slice(2, 4)), ...byDistance.map((line) => line[2])];
  const largest = Math.max(0.01, ...all.map(Math.abs));
  const bar = (value, chance, spread) => {
    const cell = make("td", "", { class: `bar${chance ? " chance" : ""}${value < 0 ? " gain" : ""}` });
    const length = make("span");
    const size = Math.abs(value).toFixed(3);
    const sign = size === "0.000" ? "" : value < 0 ? "−" : "+";
    length.style.setProperty("--length", sign ? Math.abs(value) / largest : 0);
    cell.append(length, sign + size + (spread === undefined ? "" : ` ± ${spread.toFixed(3)}`));
    return cell;
  };
  const fill = (id, caption, names, lines) => {
    const header = make("tr");
    header.append(...names.map((name) =>
      make("th", name, { scope: "col", class: /bits|random/.test(name) ? "left" : "" })));
    $(id).replaceChildren(make("caption", caption), header, ...lines.map((line) => {
      const row = make("tr");
      row.append(...line);
      return row;
    }));
  };
  fill("by-count", "The most attended", ["removed", "weight", "bits lost", "as many at random"],
    byCount.map(([count, weight, top, chance, spread]) =>
      [make("td", count), make("td", weight), bar(top), bar(chance, true, spread)]));
  fill("by-distance", "All at a distance", ["bytes back", "weight", "bits lost"],
    byDistance.map(([name, weight, lost]) => [make("td", name), make("td", weight), bar(lost)]));
}
