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

/** The likeliest classes of one row, when the output looks like scores of classes. */
export function ranking(output) {
  const { shape, data } = output;
  const numbers = data.every((value) => typeof value === "number");
  if (!numbers || !shape.length || data.length !== shape[shape.length - 1] || data.length < 2) {
    return null;
  }
  let scores = data;
  const sum = data.reduce((total, value) => total + value, 0);
  const probabilities = data.every((value) => value >= 0) && Math.abs(sum - 1) < 0.01;
  if (!probabilities) {
    const most = Math.max(...data);
    const powers = data.map((value) => Math.exp(value - most));
    const total = powers.reduce((all, value) => all + value, 0);
    scores = powers.map((value) => value / total);
  }
  const order = scores.map((score, index) => ({ index, score, value: data[index] }));
  order.sort((a, b) => b.score - a.score);
  return { probabilities, top: order.slice(0, 5) };
}

export function number(value) {
  return typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(6)).toString() : String(value);
}
