// Numbers with their units, in words, and the steps of the time axis.

const SECOND_UNITS = [[1, "s"], [1e-3, "ms"], [1e-6, "\u00b5s"], [1e-9, "ns"]];
const BYTE_UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
const LARGEST_PLAIN_BYTES = 10000;

function formatWhole(number) {
  return String(Math.round(number)).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

function formatTicks(ticks) {
  return formatWhole(ticks) + (Math.round(ticks) === 1 ? " tick" : " ticks");
}

// The largest unit that a length of time reaches, as [seconds, name].
function secondUnit(seconds) {
  return SECOND_UNITS.find(([size]) => Math.abs(seconds) >= size * 0.9999999) ?? SECOND_UNITS.at(-1);
}

function formatSeconds(seconds, digits = 4) {
  const [size, name] = seconds === 0 ? SECOND_UNITS[0] : secondUnit(seconds);
  return `${Number((seconds / size).toPrecision(digits))} ${name}`;
}

function formatBytes(bytes) {
  if (bytes < LARGEST_PLAIN_BYTES) return `${formatWhole(bytes)} B`;
  const power = Math.min(BYTE_UNITS.length - 1, Math.floor(Math.log2(bytes) / 10));
  return `${Number((bytes / 1024 ** power).toPrecision(4))} ${BYTE_UNITS[power]}`;
}

function formatPercent(ratio) {
  return `${Number((100 * ratio).toFixed(2))} %`;
}

// 1, 2 or 5 times a power of ten, the first that is at least so large.
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= least * 0.999999);
}

// The labelled times of an axis, as [time, label]; `unit` is the length of the labels' unit in times, `least` the
// smallest step in times, `name` what to write behind the number.
function axisLabels(view, least, unit, name) {
  const step = niceStep(least / unit);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const labels = [];
  for (let n = Math.ceil(view.from / unit / step - 1e-9); n * step * unit <= view.to; n++) {
    const number = decimals ? (n * step).toFixed(decimals) : formatWhole(n * step);
    labels.push([n * step * unit, number + name]);
  }
  return labels;
}
