// Numbers in words, and sums of numbers.

// Created once: creating a formatter takes longer than everything else that a selection does.
const grouped = new Intl.NumberFormat("en");
const thousands = (number) => grouped.format(number);

/** Returns a number of things in words, such as "1 byte" or "2,048 bytes". */
const plural = (count, noun) => `${thousands(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Formats a number with two or three significant digits. */
function short(number) {
  const size = Math.abs(number);
  if (size >= 100) return thousands(Math.round(number));
  if (size >= 10) return number.toFixed(1);
  return size >= 0.01 || size === 0 ? number.toFixed(2) : number.toPrecision(2);
}

/** Formats a number of bits that a byte costs. */
const cost = (bits) => (bits > 0 && bits < 0.001 ? "<0.001" : short(bits));

/** Formats a share as a percentage of at most six characters. */
function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.01) return "<0.01%";
  if (value >= 99.5 && value < 100) return value < 99.95 ? `${value.toFixed(1)}%` : ">99.9%";
  return `${value >= 10 ? value.toFixed(0) : value >= 0.1 ? value.toFixed(1) : value.toPrecision(1)}%`;
}

const ORDINALS = "first second third fourth fifth sixth seventh eighth".split(" ");

/** Returns the place of an element that is counted from 0, such as "2, the third". */
const placeInWords = (index) => (index < ORDINALS.length ? `${index}, the ${ORDINALS[index]}` : String(index));

const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
