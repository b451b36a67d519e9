// From a picture to the elements of an input that takes pictures.

/** Where an input has its channels, rows and columns; null if it takes no picture. */
export function layout(input) {
  const sizes = input.shape.length === 4 ? input.shape.slice(1) : input.shape.length === 3 ? input.shape : null;
  if (!sizes || !/^(FP|U?INT8)/.test(input.datatype)) {
    return null;
  }
  const size = (value) => (typeof value === "number" ? value : 224);
  const channels = (value) => value === 1 || value === 3;
  if (channels(sizes[0])) {
    return { first: true, channels: sizes[0], height: size(sizes[1]), width: size(sizes[2]) };
  }
  if (channels(sizes[2])) {
    return { first: false, channels: sizes[2], height: size(sizes[0]), width: size(sizes[1]) };
  }
  return null;
}

export const SCALES = {
  unit: "0 to 1",
  byte: "0 to 255",
  signed: "−1 to 1",
  imagenet: "mean and deviation of ImageNet",
};
const MEAN = [0.485, 0.456, 0.406];
const DEVIATION = [0.229, 0.224, 0.225];

/** The elements of a picture, resized to what the input takes. `source` is a File or Blob. */
export async function elements(source, place, scale) {
  const bitmap = await createImageBitmap(source);
  const canvas = new OffscreenCanvas(place.width, place.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0, place.width, place.height);
  const pixels = context.getImageData(0, 0, place.width, place.height).data;
  const size = place.width * place.height;
  const data = new Array(size * place.channels);
  for (let at = 0; at < size; at += 1) {
    const [red, green, blue] = pixels.subarray(4 * at, 4 * at + 3);
    // ITU-R BT.601, as most libraries make grey of colours.
    const colours = place.channels === 1 ? [0.299 * red + 0.587 * green + 0.114 * blue] : [red, green, blue];
    colours.forEach((colour, channel) => {
      data[place.first ? channel * size + at : at * place.channels + channel] = scaled(colour, channel, scale);
    });
  }
  return data;
}

function scaled(value, channel, scale) {
  switch (scale) {
    case "byte":
      return Math.round(value);
    case "signed":
      return round(value / 127.5 - 1);
    case "imagenet":
      return round((value / 255 - MEAN[channel]) / DEVIATION[channel]);
    default:
      return round(value / 255);
  }
}

function round(value) {
  return Math.round(value * 1e6) / 1e6;
}
