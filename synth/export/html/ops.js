// Drawing the ops of a schedule.
//
// They are summed up pixel by pixel, so that a frame costs a walk over the visible ops, however narrow they are, and
// shows them all.

const LEAST_GAPPED_WIDTH = 4;
const LEAST_NAMED_WIDTH = 34;
const LEAST_STRIPE_WIDTH = 1.5;
const LEAST_SHARES_WIDTH = 6;

function channels(colour) {
  return [1, 3, 5].map((place) => parseInt(colour.slice(place, place + 2), 16));
}

// The colours of a schedule's ops, as numbers, in the order of shadeCode.
function readShades(schedule) {
  return schedule.raw.shades.flat().map(({ fill }) => channels(fill));
}

function shadeCode(schedule, op) {
  return schedule.ops.kind[op] * schedule.raw.shades[0].length + chunkOf(schedule, op);
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
      const colour = shades[shadeCode(schedule, op)];
      const [from, to] = [schedule.start[op], schedule.end[op]].map((time) => (time - view.from) * scale);
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

// Far out, where single ops cannot be seen: in every pixel a pile of colours, as high as the kinds' shares of the time
// around it. The time is a whole number of a microbatch's turns, so that a steady state looks steady.
function drawShares(context, section, view, ratio) {
  const { schedule, lay, shades, strip } = section;
  const height = Math.round(lay.ops.height * ratio);
  const image = new ImageData(Math.ceil(lay.plot), height * schedule.numRanks);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = lay.plot / (view.to - view.from);
  const turn = section.turn * scale;
  const reach = (turn * Math.ceil(LEAST_SHARES_WIDTH / turn)) / 2;
  const margin = Math.ceil(reach) + 1;
  const wide = { from: view.from - margin / scale, to: view.to + margin / scale };
  const width = image.width + 2 * margin;
  const [first, end] = [section.first, section.end].map((time) => (time - wide.from) * scale);
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const sums = shades.map(() => new Float64Array(width + 1));
    forVisibleOps(schedule, rank, wide, (op) => {
      const sum = sums[shadeCode(schedule, op)];
      const [from, to] = [schedule.start[op], schedule.end[op]].map((time) => (time - wide.from) * scale);
      forPixels(from, to, width, (pixel, share) => { sum[pixel + 1] += share; });
    });
    for (const sum of sums) for (let pixel = 0; pixel < width; pixel++) sum[pixel + 1] += sum[pixel];
    for (let column = 0; column < image.width; column++) {
      const middle = column + margin + 0.5;
      const [from, to] = [Math.max(first, middle - reach), Math.min(end, middle + reach)];
      pile(pixels, image.width, column, rank * height, height, shades, (code) => meanOver(sums[code], from, to));
    }
  }
  putImage(strip, image);
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const top = rowTop(lay.ops, rank);
    context.drawImage(strip, 0, rank * height, lay.plot, height, lay.left, top, lay.plot, lay.ops.height);
  }
}

// The mean over a stretch, from running sums at whole places.
function meanOver(sums, from, to) {
  const at = (place) => {
    const below = Math.floor(place);
    return sums[below] + (place - below) * ((sums[below + 1] ?? 0) - sums[below]);
  };
  return to > from ? (at(to) - at(from)) / (to - from) : 0;
}

// One column of a row, from the bottom up.
function pile(pixels, width, column, top, height, shades, shareOf) {
  let sum = 0;
  let row = height - 1;
  for (let code = 0; code < shades.length; code++) {
    sum += shareOf(code);
    const [red, green, blue] = shades[code];
    const colour = (0xff << 24) | (blue << 16) | (green << 8) | red;
    for (const end = height - Math.round(sum * height); row >= end && row >= 0; row--) {
      pixels[(top + row) * width + column] = colour;
    }
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

function addColour(sums, place, [red, green, blue], share) {
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
function drawNames(context, section, view) {
  const { schedule, lay } = section;
  const scale = lay.plot / (view.to - view.from);
  const named = section.shortest * scale >= LEAST_NAMED_WIDTH;
  context.font = `${lay.font - 1}px ${section.font}`;
  context.textAlign = "center";
  const digit = context.measureText("0").width;
  if (section.longest * scale < digit + 4) return;
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const middle = rowTop(lay.ops, rank) + lay.ops.height / 2 + 0.5;
    forVisibleOps(schedule, rank, view, (op) => {
      const text = named ? nameOf(schedule, op) : String(schedule.ops.microbatch[op]);
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
  context.lineWidth = lay.ops.pitch > 20 ? 2 : 1.5;
  context.strokeStyle = context.fillStyle = look.mark;
  const inset = context.lineWidth / 2;
  for (const op of schedule.marked) {
    if (schedule.end[op] < view.from || schedule.start[op] > view.to) continue;
    const [from, to] = [xOf(lay, view, schedule.start[op]), xOf(lay, view, schedule.end[op])];
    const top = rowTop(lay.ops, rankOf(schedule, op));
    if (to - from < LEAST_GAPPED_WIDTH) context.fillRect(from, top, Math.max(1, to - from), 2);
    else context.strokeRect(from + 1 + inset, top + inset, to - from - 1 - 2 * inset, lay.ops.height - 2 * inset);
  }
  context.restore();
}
