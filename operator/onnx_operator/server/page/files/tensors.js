// Tensors as the page has them: nested lists, shapes, and what to show of them. No DOM here.

/** The shape to begin with: sizes that the model leaves open are 1. */
export function startShape(input) {
  return input.shape.map((size) => (typeof size === "number" ? size : 1));
}

export function count(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

/** Elements in a row, filled as `kind` says: zeros, ones, random or count. */
export function filled(input, shape, kind) {
  const size = count(shape);
  const whole = /^U?INT/.test(input.datatype);
  const value = {
    zeros: () => 0,
    ones: () => 1,
    count: (index) => index,
    random: () => (whole ? Math.floor(Math.random() * 10) : Math.round(Math.random() * 1e4) / 1e4),
  }[kind];
  return Array.from({ length: size }, (_, index) => cast(input.datatype, value(index)));
}

function cast(datatype, value) {
  if (datatype === "BOOL") {
    return value >= 1;
  }
  return datatype === "BYTES" ? String(value) : value;
}

/** The shape of nested lists and their elements in a row. Throws an Error with words for people. */
export function flatten(value) {
  if (!Array.isArray(value)) {
    return { shape: [], data: [value] };
  }
  const shape = [value.length];
  let level = value;
  while (level.length && Array.isArray(level[0])) {
    const size = level[0].length;
    if (level.some((row) => !Array.isArray(row) || row.length !== size)) {
      throw new Error(`lists at depth ${shape.length} have different lengths`);
    }
    shape.push(size);
    level = level.flat();
  }
  if (level.some(Array.isArray)) {
    throw new Error("lists and values are mixed");
  }
  return { shape, data: level };
}

/** Elements in a row as nested lists. */
export function nested(data, shape) {
  if (shape.length <= 1) {
    return shape.length ? data : data[0];
  }
  const [first, ...rest] = shape;
  const size = count(rest);
  return Array.from({ length: first }, (_, row) => nested(data.slice(row * size, (row + 1) * size), rest));
}

export function show(shape) {
  return `[${shape.map((size) => (size === null ? "?" : size)).join(", ")}]`;
}

/** Nested lists, or one value, as a tensor. */
export function tensorOf(value) {
  return flatten(value);
}

/** How many elements a row of a table of the tensor has. */
export function columnsOf({ shape }) {
  return shape.length > 1 ? shape[shape.length - 1] : 1;
}

const TOP = 5;

/** The likeliest classes, when the output is one row that looks like probabilities or many scores of classes. */
export function ranking(output) {
  const { shape, data } = output;
  const row = shape.length && data.length === shape[shape.length - 1] && data.length > 1;
  if (!row || !isFloating(output) || !data.every(Number.isFinite)) {
    return null;
  }
  const probabilities = addUpToOne(data);
  // A few numbers may be anything; so may a list of one number a row.
  if (!probabilities && (shape.length < 2 || data.length < TOP)) {
    return null;
  }
  let scores = data;
  if (!probabilities) {
    const most = Math.max(...data);
    const powers = data.map((value) => Math.exp(value - most));
    const total = powers.reduce((all, value) => all + value, 0);
    scores = powers.map((value) => value / total);
  }
  const order = scores.map((score, index) => ({ index, score, value: data[index] }));
  order.sort((a, b) => b.score - a.score);
  return { probabilities, top: order.slice(0, TOP) };
}

/** The column of the greatest value in each row, when the rows are probabilities; null else. */
export function likeliest(output) {
  const { shape, data } = output;
  const columns = columnsOf(output);
  if (shape.length !== 2 || columns < 2 || !isFloating(output)) {
    return null;
  }
  const found = [];
  for (let at = 0; at < data.length; at += columns) {
    const row = data.slice(at, at + columns);
    if (!addUpToOne(row)) {
      return null;
    }
    found.push(row.indexOf(Math.max(...row)));
  }
  return found;
}

function isFloating({ datatype }) {
  return /^FP/.test(datatype);
}

function addUpToOne(values) {
  const sum = values.reduce((total, value) => total + value, 0);
  return values.every((value) => typeof value === "number" && value >= 0) && Math.abs(sum - 1) < 0.01;
}

/** A sentence on a tensor that is too large for a table. */
export function summary({ data }) {
  const numbers = data.filter(Number.isFinite);
  const range = numbers.reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity]);
  const mean = numbers.reduce((total, value) => total + value, 0) / numbers.length;
  const told = numbers.length ? `, from ${number(range[0])} to ${number(range[1])}, ${number(mean)} on average` : "";
  return `${data.length} elements${told}.`;
}

// JSON whose whole numbers stay exact: JavaScript's own numbers end at 2^53.

const MARK = `exact ${Math.random()} `;
const TOKEN = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** A whole number without loss, whatever its size. */
export function whole(written) {
  return Number.isSafeInteger(Number(written)) ? Number(written) : BigInt(written);
}

export function fromText(text) {
  if (!/\d{16}/.test(text)) {
    return JSON.parse(text);
  }
  const exact = (token) => (/^-?\d+$/.test(token) && typeof whole(token) === "bigint" ? `"${MARK}${token}"` : token);
  const revive = (_, value) => (typeof value === "string" && value.startsWith(MARK) ? BigInt(value.slice(MARK.length)) : value);
  return JSON.parse(text.replace(TOKEN, exact), revive);
}

export function toText(value, space) {
  const written = JSON.stringify(value, (_, each) => (typeof each === "bigint" ? `${MARK}${each}` : each), space);
  return written === undefined ? "null" : written.replaceAll(new RegExp(`"${MARK}(-?\\d+)"`, "g"), "$1");
}

export function number(value) {
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)).toString() : String(value);
}
