// Drawing the ops of a schedule.
//
// They are summed up pixel by pixel, so that a frame costs a walk over the visible ops, however narrow they are, and
// shows them all.

const LEAST_GAPPED_WIDTH = 4;
const LEAST_NAMED_WIDTH = 34;
const LEAST_STRIPE_WIDTH = 1.5;
const LEAST_SHARES_WIDTH = 6;
const SHARES_STEP = 2;

// The colours of a schedule's ops, as numbers, in the order of its column `shade`.
function readShades(schedule) {
  return schedule.raw.shades.flat().map(({ fill }) => {
    const [red, green, blue] = [1, 3, 5].map((place) => parseInt(fill.slice(place, place + 2), 16));
    return { red, green, blue, pixel: ((0xff << 24) | (blue << 16) | (green << 8) | red) >>> 0 };
  });
}

function drawOps(context, section, view) {
  const meanWidth = (section.mean / (view.to - view.from)) * section.lay.plot;
  const ratio = context.getTransform().a;
  context.imageSmoothingEnabled = false;
  if (meanWidth < LEAST_STRIPE_WIDTH) drawShares(context, section, view, ratio);
  else drawStripes(context, section, view, ratio);
}

// Every rank as one row of pixels, stretched to the height of its row.
function drawStripes(context, { schedule, lay, shades, strip }, view, ratio) {
  const image = new ImageData(Math.max(1, Math.round(lay.plot * ratio)), schedule.numRanks);
  const sums = new Float64Array(4 * image.width);
  const scale = image.width / (view.to - view.from);
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    sums.fill(0);
    forVisibleOps(schedule, rank, view, (op) => {
      const colour = shades[schedule.shade[op]];
      const [from, to] = [(schedule.start[op] - view.from) * scale, (schedule.end[op] - view.from) * scale];
      const gap = to - from >= LEAST_GAPPED_WIDTH * ratio ? ratio : 0;
      forPixels(from + gap, to, image.width, (pixel, share) => addColour(sums, 4 * pixel, colour, share));
    });
    writePixels(image.data, 4 * image.width * rank, sums);
  }
  putImage(strip, image);
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    context.drawImage(strip, 0, rank, image.width, 1, lay.left, rowTop(lay.ops, rank), lay.plot, lay.ops.height);
  }
}

// Far out, where single ops cannot be seen: side by side piles of colours, as high as the kinds' shares of the time
// around them. That time is a whole number of a microbatch's turns, so that a steady state looks steady.
function drawShares(context, section, view, ratio) {
  const { schedule, lay, shades, strip } = section;
  const height = Math.round(lay.ops.height * ratio);
  const image = new ImageData(Math.ceil(lay.plot / SHARES_STEP), height * schedule.numRanks);
  const pixels = new Uint32Array(image.data.buffer);
  const around = timeAround(section, view, image.width);
  const sums = new Float64Array(shades.length * around.width);
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    sumShares(sums.fill(0), section, rank, around);
    for (let column = 0; column < image.width; column++) {
      pile(pixels, rank * height * image.width + column, image.width, height, section, sums, column, around);
    }
  }
  putImage(strip, image);
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const top = rowTop(lay.ops, rank);
    context.drawImage(strip, 0, rank * height, lay.plot / SHARES_STEP, height, lay.left, top, lay.plot, lay.ops.height);
  }
}

// How far around a pile its shares are taken, and the columns needed for that, one for each pile.
function timeAround({ lay, turn, first, end }, view, columns) {
  const scale = lay.plot / SHARES_STEP / (view.to - view.from);
  const reach = (turn * scale * Math.ceil(LEAST_SHARES_WIDTH / SHARES_STEP / (turn * scale))) / 2;
  const margin = Math.ceil(reach) + 1;
  const [from, to] = [view.from - margin / scale, view.to + margin / scale];
  const place = (time) => (time - from) * scale;
  return { reach, margin, from, to, scale, first: place(first), end: place(end), width: columns + 2 * margin + 2 };
}

// For every shade, running sums over the columns of the time that a rank spends on it.
function sumShares(sums, { schedule, shades }, rank, around) {
  const { from, scale, width } = around;
  const last = width - 2;
  forVisibleOps(schedule, rank, around, (op) => {
    const base = schedule.shade[op] * width + 1;
    const [start, end] = [(schedule.start[op] - from) * scale, (schedule.end[op] - from) * scale];
    forPixels(start, end, last, (pixel, share) => { sums[base + pixel] += share; });
  });
  for (let code = 0; code < shades.length; code++) {
    for (let place = code * width + 1; place < (code + 1) * width; place++) sums[place] += sums[place - 1];
  }
}

// One column of a row, from the bottom up.
function pile(pixels, place, width, height, { shades }, sums, column, around) {
  const middle = column + around.margin + 0.5;
  const from = Math.max(around.first, middle - around.reach);
  const to = Math.min(around.end, middle + around.reach);
  if (to <= from) return;
  const [low, high] = [Math.floor(from), Math.floor(to)];
  let sum = 0;
  let row = height - 1;
  for (let code = 0; code < shades.length; code++) {
    const [a, b] = [code * around.width + low, code * around.width + high];
    sum += sums[b] + (to - high) * (sums[b + 1] - sums[b]) - sums[a] - (from - low) * (sums[a + 1] - sums[a]);
    const end = Math.max(0, height - Math.round((sum / (to - from)) * height));
    for (; row >= end; row--) pixels[place + row * width] = shades[code].pixel;
  }
}

function forVisibleOps(schedule, rank, view, act) {
  const last = opsOfRank(schedule, rank)[1];
  for (let op = firstEndingAfter(schedule, rank, view.from); op < last && schedule.start[op] < view.to; op++) act(op);
}

// Every pixel that a stretch touches, with the share of it that is covered.
function forPixels(from, to, width, act) {
  const [first, end] = [Math.max(0, from), Math.min(width, to)];
  for (let pixel = Math.floor(first); pixel < end; pixel++) {
    act(pixel, Math.min(pixel + 1, end) - Math.max(pixel, first));
  }
}

function addColour(sums, place, { red, green, blue }, share) {
  sums[place] += share * red;
  sums[place + 1] += share * green;
  sums[place + 2] += share * blue;
  sums[place + 3] += share;
}

function writePixels(data, offset, sums) {
  for (let place = 0; place < sums.length; place += 4) {
    const share = sums[place + 3];
    if (share === 0) continue;
    data[offset + place] = sums[place] / share;
    data[offset + place + 1] = sums[place + 1] / share;
    data[offset + place + 2] = sums[place + 2] / share;
    data[offset + place + 3] = 255 * share;
  }
}

function putImage(canvas, image) {
  if (canvas.width !== image.width || canvas.height !== image.height) {
    Object.assign(canvas, { width: image.width, height: image.height });
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Microbatch numbers where they fit; whole names once even the shortest op is wide enough.
function drawNames(context, section, look, view) {
  const { schedule, lay } = section;
  const scale = lay.plot / (view.to - view.from);
  const named = section.shortest * scale >= LEAST_NAMED_WIDTH;
  context.font = `${lay.font - 1}px ${look.font}`;
  context.textAlign = "center";
  const digit = context.measureText("0").width;
  if (section.longest * scale < digit + 4) return;
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const middle = rowTop(lay.ops, rank) + lay.ops.height / 2 + 0.5;
    forVisibleOps(schedule, rank, view, (op) => {
      const text = named ? nameOf(schedule, op) : shortNameOf(schedule, op);
      const from = Math.max(lay.left, xOf(lay, view, schedule.start[op]));
      const to = Math.min(lay.width, xOf(lay, view, schedule.end[op]));
      if (to - from < text.length * digit + 3) return;
      context.fillStyle = shadeOf(schedule, op).text;
      context.fillText(text, (from + to + 1) / 2, middle);
    });
  }
}

function drawMarked(context, { schedule, lay }, look, view) {
  context.save();
  context.beginPath();
  context.rect(lay.left, 0, lay.plot, lay.height);
  context.clip();
  context.strokeStyle = context.fillStyle = look.mark;
  for (const op of schedule.marked) {
    if (schedule.end[op] < view.from || schedule.start[op] > view.to) continue;
    const [from, to] = [xOf(lay, view, schedule.start[op]), xOf(lay, view, schedule.end[op])];
    const top = rowTop(lay.ops, rankOf(schedule, op));
    const width = clamp(1, (to - from) / 10, 2);
    const inset = width / 2;
    context.lineWidth = width;
    if (to - from < LEAST_GAPPED_WIDTH) context.fillRect(from, top, Math.max(1, to - from), 2);
    else context.strokeRect(from + 1 + inset, top + inset, to - from - 1 - 2 * inset, lay.ops.height - 2 * inset);
  }
  context.restore();
}
