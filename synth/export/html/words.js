// What the page says: lines of text for whatever is pointed at, and the numbers on top.

const KIND_WORDS = {
  F: "forward",
  B: "backward, input gradient",
  W: "backward, weight gradient",
  BW: "backward, undivided",
  R: "sum of weight gradients",
};
const OBJECTIVE_WORDS = { makespan: "makespan", rank_span: "rank span" };
const TIME_DIGITS = 7;

function inSeconds(schedule, ticks, digits) {
  return formatSeconds(ticks * schedule.raw.tick_seconds, digits);
}

function bothUnits(schedule, ticks) {
  return `${formatTicks(ticks)}, ${inSeconds(schedule, ticks)}`;
}

function spanWords(schedule, start, end) {
  const seconds = [start, end].map((ticks) => inSeconds(schedule, ticks, TIME_DIGITS)).join(" \u2013 ");
  return [
    `${formatWhole(start)} \u2013 ${formatTicks(end)} (${formatTicks(end - start)})`,
    `${seconds} (${inSeconds(schedule, end - start)})`,
  ];
}

function opWords(schedule, op) {
  const { kind, stage, microbatch, start, end } = schedule.ops;
  const letter = schedule.raw.kinds[kind[op]];
  const rank = rankOf(schedule, op);
  const [alloc, free] = schedule.raw.costs[stage[op]][letter];
  const live = formatBytes(liveAt(schedule, rank, schedule.start[op]));
  return [
    `${nameOf(schedule, op)}: ${KIND_WORDS[letter]}`,
    placeWords(schedule, op),
    ...spanWords(schedule, start[op], end[op]),
    `allocates ${formatBytes(alloc)}, frees ${formatBytes(free)}; rank ${rank} holds ${live} meanwhile`,
    ...transfersOf(schedule, "consumer", op).map((transfer) => transferWords(schedule, transfer, "producer", "from")),
    ...transfersOf(schedule, "producer", op).map((transfer) => transferWords(schedule, transfer, "consumer", "to")),
    ...(schedule.markedSet.has(op) ? ["marked"] : []),
  ];
}

// A flow's stage says what it is of the model; a sum of gradients belongs to no microbatch.
function placeWords(schedule, op) {
  const { kind, stage, microbatch } = schedule.ops;
  const name = schedule.raw.stage_names[stage[op]];
  const part = name ? `stage ${stage[op]} (${name})` : `stage ${stage[op]}, chunk ${chunkOf(schedule, op)}`;
  const of = schedule.raw.kinds[kind[op]] === "R" ? "all microbatches" : `microbatch ${microbatch[op]}`;
  return `rank ${rankOf(schedule, op)}, ${part}, ${of}`;
}

function transferWords(schedule, transfer, side, preposition) {
  const other = schedule.transfers[side][transfer];
  const { start, end } = schedule.transfers;
  return `${preposition} ${nameOf(schedule, other)} on rank ${rankOf(schedule, other)}: `
    + `leaves at ${formatWhole(start[transfer])}, there at ${formatWhole(end[transfer])} `
    + `(${inSeconds(schedule, end[transfer] - start[transfer])})`;
}

function idleWords(schedule, rank, time) {
  const [start, end] = idleAround(schedule, rank, time).map((edge) => edge / schedule.scale);
  if (start === -Infinity) return [`rank ${rank}: not begun`, `first op at ${bothUnits(schedule, end)}`];
  if (end === Infinity) return [`rank ${rank}: done`, `last op ended at ${bothUnits(schedule, start)}`];
  return [`rank ${rank}: idle`, ...spanWords(schedule, start, end)];
}

function memoryWords(schedule, rank, time) {
  const { limits, peaks, static: held } = schedule.raw;
  return [
    `rank ${rank}: ${formatBytes(liveAt(schedule, rank, time))}`,
    `at ${bothUnits(schedule, time / schedule.scale)}`,
    `peak ${formatBytes(peaks[rank])}, ${limitWords(limits, rank)}`,
    ...(held[rank] ? [`static ${formatBytes(held[rank])}`] : []),
  ];
}

function limitWords(limits, rank) {
  return limits ? `limit ${formatBytes(limits[rank])}` : "no limit";
}

// The problem's name, facts and source: names may be written from right to left, so each stands for itself.
function aboutParts(schedule) {
  const { name, source, num_microbatches, shape, tick_seconds } = schedule.raw;
  const facts = [
    `${schedule.numRanks} ranks`, shape, `${num_microbatches} microbatches`,
    `${formatWhole(schedule.start.length)} ops`, `a tick is ${formatSeconds(tick_seconds)}`,
  ];
  return { name, facts: facts.join(", "), source };
}

// The numbers on top, as {name, text, small, over}.
function numbersOf(schedule) {
  const { value, bubble, objective, certificate } = schedule.raw;
  const numbers = [
    { name: OBJECTIVE_WORDS[objective], text: formatTicks(value), small: inSeconds(schedule, value) },
    { name: "bubble", text: formatPercent(bubble), small: `of the ${OBJECTIVE_WORDS[objective]}` },
  ];
  if (certificate) numbers.push(...certificateNumbers(schedule, certificate));
  return [...numbers, peakNumber(schedule)];
}

// A measured schedule has another value than the one that its certificate is about.
function certificateNumbers(schedule, { objective, value, lower_bound, gap, status }) {
  const bound = inSeconds(schedule, lower_bound);
  const small = objective === schedule.raw.objective ? bound : `${bound}, ${OBJECTIVE_WORDS[objective]}`;
  const planned = objective === schedule.raw.objective && value !== schedule.raw.value;
  return [
    { name: "lower bound", text: formatTicks(lower_bound), small },
    { name: "gap", text: formatPercent(gap), small: planned ? `of the planned ${formatTicks(value)}` : status },
  ];
}

function peakNumber(schedule) {
  const { peaks, limits } = schedule.raw;
  const excess = peaks.map((peak, rank) => (limits ? peak / Math.max(1, limits[rank]) : peak));
  const rank = excess.indexOf(Math.max(...excess));
  const over = limits !== null && peaks[rank] > limits[rank];
  const small = `on rank ${rank}, ${limitWords(limits, rank)}${over ? ": over it" : ""}`;
  return { name: "peak memory", text: formatBytes(peaks[rank]), small, over };
}
