// The layer above a drawing: the cursor with what every rank does then, and what is pointed at with its transfers.

const ARROW_HEAD = 9;
const ARRIVAL_DEPTH = 2.5;

function drawOverlay(section, look, page) {
  const { lay } = section;
  const context = fitCanvas(section.overlay, lay);
  context.textBaseline = "middle";
  drawReadings(context, section, look, page.cursor);
  context.save();
  context.beginPath();
  context.rect(lay.left, 0, lay.plot, lay.height);
  context.clip();
  if (page.cursor !== null) drawCursor(context, section, look, page);
  if (page.target?.section === section) drawTarget(context, section, look, page);
  context.restore();
}

// Beside every row: at the cursor the rank's op and what it holds, without one its peak.
function drawReadings(context, { schedule, lay }, look, cursor) {
  context.font = `${lay.font}px ${look.font}`;
  context.textAlign = "right";
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const { op, memory } = readingOf(schedule, rank, cursor);
    context.fillStyle = cursor === null ? look.dim : look.ink;
    context.fillText(op, lay.left - 10, rowTop(lay.ops, rank) + lay.ops.height / 2 + 0.5);
    if (lay.memory) context.fillText(memory, lay.left - 10, rowTop(lay.memory, rank) + lay.memory.height / 2 + 0.5);
  }
}

function readingOf(schedule, rank, cursor) {
  if (cursor === null) return { op: "", memory: `peak ${formatBytes(schedule.raw.peaks[rank])}` };
  const op = opAt(schedule, rank, cursor);
  return { op: op < 0 ? "idle" : nameOf(schedule, op), memory: formatBytes(liveAt(schedule, rank, cursor)) };
}

function drawCursor(context, { lay }, look, page) {
  const x = xOf(lay, page.view, page.cursor);
  context.fillStyle = look.cursor;
  context.fillRect(x - 0.75, AXIS_HEIGHT - 8, 1.5, lay.height);
  context.beginPath();
  context.moveTo(x - 5, AXIS_HEIGHT - 9);
  context.lineTo(x + 5, AXIS_HEIGHT - 9);
  context.lineTo(x, AXIS_HEIGHT - 1);
  context.fill();
}

function drawTarget(context, section, look, page) {
  const { schedule, lay } = section;
  const { op, rank } = page.target;
  if (op < 0) return;
  const [from, to] = [xOf(lay, page.view, schedule.start[op]), xOf(lay, page.view, schedule.end[op])];
  context.lineWidth = 2;
  context.strokeStyle = look.cursor;
  context.strokeRect(from, rowTop(lay.ops, rank), Math.max(2, to - from), lay.ops.height);
  for (const side of ["consumer", "producer"]) {
    for (const transfer of transfersOf(schedule, side, op)) drawTransfer(context, section, look, page.view, transfer);
  }
}

// From the end of the producer to the arrival on the consumer's rank, dashed on to the consumer where it starts later.
function drawTransfer(context, { schedule, lay }, look, view, transfer) {
  const { producer, consumer } = schedule.transfers;
  const starts = schedule.start[consumer[transfer]];
  const arrives = Math.min(schedule.transferEnd[transfer], starts);
  const [from, to] = [producer, consumer].map((column) => rowTop(lay.ops, rankOf(schedule, column[transfer])));
  const tail = { x: xOf(lay, view, schedule.transferStart[transfer]), y: from + lay.ops.height / 2 };
  const edge = to > from ? ARRIVAL_DEPTH : lay.ops.height - ARRIVAL_DEPTH;
  const head = { x: xOf(lay, view, arrives), y: to + edge };
  strokeTwice(context, look, [], tail, head);
  if (starts > arrives) strokeTwice(context, look, [3, 3], head, { x: xOf(lay, view, starts), y: head.y });
  fillHead(context, look, tail, head);
}

// A line that is seen on every colour: on a wider one in the colour of the ground.
function strokeTwice(context, look, dash, from, to) {
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(to.x, to.y);
  context.strokeStyle = look.panel;
  context.lineWidth = dash.length ? 3.5 : 4.5;
  context.stroke();
  context.setLineDash(dash);
  context.strokeStyle = look.ink;
  context.lineWidth = dash.length ? 1.5 : 1.75;
  context.stroke();
  context.setLineDash([]);
}

function fillHead(context, look, tail, head) {
  const angle = Math.atan2(head.y - tail.y, head.x - tail.x);
  const corner = (turn) => [
    head.x - ARROW_HEAD * Math.cos(angle + turn), head.y - ARROW_HEAD * Math.sin(angle + turn),
  ];
  context.beginPath();
  context.moveTo(head.x, head.y);
  context.lineTo(...corner(0.45));
  context.lineTo(...corner(-0.45));
  context.closePath();
  context.lineWidth = 2;
  context.strokeStyle = look.panel;
  context.stroke();
  context.fillStyle = look.ink;
  context.fill();
}
