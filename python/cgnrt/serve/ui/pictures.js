// From tensors to pictures, canvases, sheets and PNG files. Pixels stay as the server made them.

export const ROWS = ["mask", "foreground", "background", "composite"];

// Of a sheet, in pixels. Tiles are enlarged by a whole number.
const SHEET = { gap: 6, head: 20, margin: 84, tile: 96, across: 12 };

/**
 * The pictures of every sample of a response.
 * @param {[number, number]} range value range of foreground and background
 * @returns {Object<string, ImageData>[]}
 */
export function decode(tensors, range) {
  const { images } = tensors;
  const found = [];
  for (let i = 0; i < images.shape[0]; i++) {
    found.push({
      mask: planes(tensors.mask, i, [0, 1]),
      foreground: planes(tensors.foreground, i, range),
      background: planes(tensors.background, i, range),
      composite: interleaved(images, i),
    });
  }
  return found;
}

/** Sample i of float NCHW with one channel or three. */
function planes({ shape, data }, i, [low, high]) {
  const [, channels, height, width] = shape;
  const size = height * width;
  const picture = new ImageData(width, height);
  const scale = 255 / (high - low);
  for (let p = 0; p < size; p++) {
    for (let c = 0; c < 3; c++) {
      const value = data[(i * channels + (channels === 1 ? 0 : c)) * size + p];
      picture.data[4 * p + c] = Math.round((value - low) * scale); // which clamps
    }
    picture.data[4 * p + 3] = 255;
  }
  return picture;
}

/** Sample i of uint8 NHWC. */
function interleaved({ shape, data }, i) {
  const [, height, width] = shape;
  const picture = new ImageData(width, height);
  const from = i * height * width * 3;
  for (let p = 0; p < height * width; p++) {
    for (let c = 0; c < 3; c++) picture.data[4 * p + c] = data[from + 3 * p + c];
    picture.data[4 * p + 3] = 255;
  }
  return picture;
}

/** Show a picture pixel for pixel; the style sheet enlarges it. */
export function draw(canvas, picture) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

/** A canvas of columns with a caption each: mask, foreground, background, composite; several lines of them if long. */
export function sheet(columns) {
  const { width, height } = columns[0].pictures.composite;
  const scale = Math.max(1, Math.round(SHEET.tile / width));
  const step = { x: scale * width + SHEET.gap, y: scale * height + SHEET.gap };
  const across = Math.min(columns.length, SHEET.across);
  const block = SHEET.head + ROWS.length * step.y;
  const canvas = document.createElement("canvas");
  canvas.width = SHEET.margin + across * step.x;
  canvas.height = SHEET.gap + Math.ceil(columns.length / across) * block;
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "#202020";
  context.font = "13px system-ui, sans-serif";
  context.imageSmoothingEnabled = false;
  const tile = document.createElement("canvas");
  columns.forEach(({ label, pictures }, i) => {
    const x = SHEET.margin + (i % across) * step.x;
    const y = SHEET.gap + Math.floor(i / across) * block;
    context.fillText(label, x, y + SHEET.head - 7, scale * width);
    ROWS.forEach((row, k) => {
      const top = y + SHEET.head + k * step.y;
      if (i % across === 0) context.fillText(row, SHEET.gap, top + 14);
      draw(tile, pictures[row]);
      context.drawImage(tile, x, top, scale * width, scale * height);
    });
  });
  return canvas;
}

/** Offer a canvas as a PNG file. */
export async function save(canvas, name) {
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  if (blob === null) throw new Error("The sheet is too large for this browser. Take fewer frames.");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
