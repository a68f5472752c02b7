// Explorer: draws the precomputed data of the page. Names are inserted as text, never as HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const css = (variable, share) => `rgba(var(${variable}), ${share.toFixed(3)})`;
  const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)}\u00a0%`;
  const short = (text, length = 14) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
  const number = (value) => Number(value.toPrecision(3)).toLocaleString("en", { maximumFractionDigits: 6 });
  const cost = (value) => (value === null ? "–" : data.kind === "seconds" ? `${number(value)}\u00a0s` : number(value));
  const className = (answer) => (typeof answer === "number" ? data.classes[answer] : answer);
  const hasClasses = data.shown.length > 0;
  const figure = (value) => Math.abs(value) < 1000 ? value.toFixed(4) : String(Number(value.toPrecision(6)));
  const score = (value) => (value === undefined ? "–" : data.percent ? percent(value, 2) : figure(value));

  function htmlNode(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  function svgNode(tag, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  // axes

  function scale(values, from, to) {
    const low = Math.min(...values), high = Math.max(...values);
    const log = low > 0;
    const place = log ? Math.log : (x) => x;
    const margin = 0.05 * (place(high) - place(low)) || 0.5;
    const [a, b] = [place(low) - margin, place(high) + margin];
    const at = (value) => from + ((place(value) - a) / (b - a)) * (to - from);
    return { at, ticks: ticks(low, high, log) };
  }

  function ticks(low, high, log) {
    if (!(high > low)) return [low];
    if (log && high / low > 6) {
      const found = [];
      const steps = high / low > 200 ? [1] : [1, 2, 5];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
        for (const step of steps) found.push(Number((step * 10 ** power).toPrecision(3)));
      return found.filter((tick) => tick >= low * 0.97 && tick <= high * 1.03);
    }
    const raw = (high - low) / 4, unit = 10 ** Math.floor(Math.log10(raw));
    const step = unit * [1, 2, 5, 10].find((times) => times * unit >= raw);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + 1e-12; tick += step) found.push(tick);
    return found;
  }

  function axes(svg, x, y, box, xLabel, yLabel) {
    for (const tick of x.ticks) {
      svg.append(svgNode("line", { class: "axis", x1: x.at(tick), x2: x.at(tick), y1: box.top, y2: box.bottom }));
      svg.append(svgNode("text", { x: x.at(tick), y: box.bottom + 17, "text-anchor": "middle" }, number(tick)));
    }
    for (const tick of y.ticks) {
      svg.append(svgNode("line", { class: "axis", y1: y.at(tick), y2: y.at(tick), x1: box.left, x2: box.right }));
      svg.append(svgNode("text", { x: box.left - 7, y: y.at(tick) + 4, "text-anchor": "end" }, number(tick)));
    }
    svg.append(svgNode("text", { x: (box.left + box.right) / 2, y: box.bottom + 36, "text-anchor": "middle" }, xLabel));
    svg.append(svgNode("text", { x: box.left, y: box.top - 9 }, yLabel));
  }

  // Resize the chart to the available width, so that text keeps its size; return the plot area.
  function resize(svg, most, ratio) {
    const width = Math.max(260, Math.min(most, svg.parentElement.clientWidth - 26)), height = Math.round(width * ratio);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.style.maxWidth = `${width}px`;
    svg.replaceChildren();
    return { left: 48, right: width - 10, top: 26, bottom: height - 44 };
  }

  // chart of networks and ensembles

  const loss = (point) => point.figures[`valid_${data.ranking}`];
  const marker = svgNode("g", {});
  let box, x, y;

  function chart() {
    const svg = $("chart");
    box = resize(svg, 680, 0.64);
    x = scale([...data.dots.map((d) => d[0]), ...data.points.map((p) => p.cost)], box.left, box.right);
    y = scale([...data.dots.map((d) => d[1]), ...data.points.map(loss)], box.bottom, box.top);
    axes(svg, x, y, box, `cost (${data.unit})`, `validation ${data.loss}`);
    for (const [seconds, value] of data.dots)
      svg.append(svgNode("circle", { class: "dot", cx: x.at(seconds), cy: y.at(value), r: 3.5 }));
    const steps = data.points.map((p, i) => `${i ? `H${x.at(p.cost)}V` : `M${x.at(p.cost)} `}${y.at(loss(p))}`);
    svg.append(svgNode("path", { class: "stair", d: `${steps.join("")}H${box.right}` }));
    data.points.forEach((point, index) => {
      const step = svgNode("circle", { class: "step", cx: x.at(point.cost), cy: y.at(loss(point)), r: 4.5 });
      step.append(svgNode("title", {}, `${cost(point.cost)}, ${point.members.length} members`));
      step.addEventListener("click", () => { $("budget").value = index; show(); });
      svg.append(step);
    });
    svg.append(marker);
  }

  function mark(point) {
    marker.replaceChildren();
    const [cx, cy] = [x.at(point.cost), y.at(loss(point))];
    marker.append(svgNode("line", { class: "rule", x1: cx, x2: cx, y1: box.top, y2: box.bottom }));
    for (const member of point.members.map((index) => data.members[index]))
      if (member.cost !== null)
        marker.append(svgNode("circle", { class: "own", cx: x.at(member.cost), cy: y.at(member.loss), r: 5 }));
    marker.append(svgNode("circle", { class: "now", cx, cy, r: 7 }));
  }

  // metrics and members

  function figures(point) {
    const known = [["cost", cost(point.cost)], ["members", String(point.members.length)]];
    if (point.expected) known.push(point.expected);
    for (const [split, name] of [["valid", "validation"], ["test", "test"]]) {
      if (!(`${split}_${data.score}` in point.figures)) continue;
      known.push([`${name} ${data.metric}`, score(point.figures[`${split}_${data.score}`])]);
      known.push([`${name} ${data.loss}`, figure(point.figures[`${split}_${data.ranking}`])]);
    }
    if (hasClasses) known.push(["calibration error", percent(point.error)], ["temperature", point.temperature.toFixed(2)]);
    $("figures").replaceChildren(
      ...known.map(([name, value]) => htmlNode("div", { class: "figure" }, htmlNode("b", {}, value), name)),
    );
    const names = point.names.length ? `: ${point.names.join(", ")}` : "";
    $("chosen").textContent = `The ensemble${names}`;
  }

  function members(point) {
    $("members").replaceChildren(
      ...point.members.map((index, place) => {
        const member = data.members[index];
        const cells = [percent(point.weights[place]), cost(member.cost), figure(member.loss), score(member.score),
          ...(hasClasses ? ["error" in member ? percent(member.error) : "–"] : []), member.parameters.toLocaleString("en"), String(member.epoch)];
        return htmlNode("tr", {}, htmlNode("th", { scope: "row" }, member.id), ...cells.map((cell) => htmlNode("td", {}, cell)));
      }),
    );
  }

  // confusion and calibration of the ensemble or of one member

  function updateChoices(point) {
    const before = $("predictor").value;
    const known = point.members.filter((index) => "confusion" in data.members[index]);
    $("predictor").replaceChildren(
      htmlNode("option", { value: "ensemble" }, "the ensemble"),
      ...known.map((index) => htmlNode("option", { value: String(index) }, data.members[index].id)),
    );
    $("predictor").value = known.includes(Number(before)) && before !== "" ? before : "ensemble";
  }

  function heat(table, names, cell) {
    const long = names.some((name) => name.length > 3);
    const head = htmlNode("tr", {}, htmlNode("td"));
    for (const name of names) {
      const th = htmlNode("th", { scope: "col", title: name }, short(name));
      if (long) th.className = "long";
      head.append(th);
    }
    const body = names.map((name, row) =>
      htmlNode("tr", {}, htmlNode("th", { scope: "row", title: name }, short(name)), ...names.map((_, column) => cell(row, column))));
    table.replaceChildren(htmlNode("thead", {}, head), htmlNode("tbody", {}, ...body));
  }

  function shaded(text, share, title) {
    const td = htmlNode("td", { title }, text);
    td.style.background = css("--blue-rgb", 0.92 * share);
    if (share > 0.6) td.style.color = "var(--page)";
    return td;
  }

  function confusion(evaluation, point) {
    const names = [...data.shown.map(className), ...(data.rest ? ["other"] : [])];
    const sums = evaluation.confusion.map((row) => row.reduce((a, b) => a + b, 0) || 1);
    heat($("confusion"), names, (row, column) => {
      const count = evaluation.confusion[row][column];
      const td = shaded(count ? String(count) : "", count / sums[row], `${names[row]} classified as ${names[column]}: ${count}`);
      if (row === column) td.className = "right";
      return td;
    });
    const most = evaluation === point ? point.confused : [];
    const top = Math.max(1, ...most.map((c) => c[2]));
    $("confused").replaceChildren(...most.map(([truth, answer, count]) =>
      bar(`${className(truth)} classified as ${className(answer)}`, `${count}×`, count / top)));
  }

  function bar(name, value, share) {
    const length = htmlNode("span");
    length.style.width = `${(100 * share).toFixed(1)}%`;
    return htmlNode("li", {}, htmlNode("span", {}, name), htmlNode("span", { class: "dim" }, value), length);
  }

  function calibration(evaluation, name) {
    $("predictor-name").textContent = name;
    const range = evaluation.range.map((end) => percent(end)).join(" to ");
    $("calibration").textContent = `Calibration error: ${percent(evaluation.error)} (${range}), bins of equal mass; with temperature ` +
      `${evaluation.temperature.toFixed(2)}, fitted on validation samples: ${percent(evaluation.cooled)}.`;
    const svg = $("reliability"), frame = resize(svg, 440, 0.82);
    const total = evaluation.bins.reduce((sum, [count]) => sum + count, 0) || 1;
    const across = { at: (v) => frame.left + v * (frame.right - frame.left), ticks: [0, 0.25, 0.5, 0.75, 1] };
    const up = { at: (v) => frame.bottom - v * (frame.bottom - frame.top), ticks: [0, 0.25, 0.5, 0.75, 1] };
    axes(svg, across, up, frame, "confidence", "accuracy");
    evaluation.bins.forEach(([count, low, high, confidence, right]) => {
      const rect = svgNode("rect", { class: "bar", x: across.at(low), width: Math.max(2, across.at(high) - across.at(low) - 1),
        y: up.at(right), height: up.at(0) - up.at(right) });
      rect.style.fillOpacity = (0.25 + 0.65 * Math.sqrt(count / total)).toFixed(2);
      rect.append(svgNode("title", {}, `${count} samples: confidence ${percent(confidence)}, accuracy ${percent(right)}`));
      svg.append(rect);
    });
    svg.append(svgNode("line", { class: "ideal", x1: across.at(0), y1: up.at(0), x2: across.at(1), y2: up.at(1) }));
    svg.setAttribute("aria-label", `Reliability of ${name}: calibration error ${percent(evaluation.error)}`);
  }

  function showDetails() {
    const point = data.points[$("budget").value];
    const chosen = $("predictor").value;
    const evaluation = chosen === "ensemble" ? point : data.members[chosen];
    confusion(evaluation, point);
    calibration(evaluation, chosen === "ensemble" ? "the ensemble" : data.members[chosen].id);
  }

  // disagreement

  const shares = new Map(data.pairs.flatMap(([a, b, share]) => [[`${a} ${b}`, share], [`${b} ${a}`, share]]));

  function pairs(point) {
    const own = point.members.filter((a) => point.members.every((b) => a === b || shares.has(`${a} ${b}`)) || point.members.length > 16).slice(0, 16);
    $("pairs").parentElement.hidden = own.length < 2;
    if (own.length < 2) {
      $("agreement").textContent = "The ensemble has only one member.";
      return;
    }
    const known = own.flatMap((a, i) => own.slice(i + 1).map((b) => shares.get(`${a} ${b}`) ?? 0));
    const mean = known.reduce((a, b) => a + b, 0) / known.length, top = Math.max(...known) || 1;
    $("agreement").textContent = hasClasses
      ? `Percentage of samples that two members classify differently; mean: ${percent(mean)}.`
      : `Of two members, in percent: ${data.difference}; mean: ${percent(mean)}.`;
    heat($("pairs"), own.map((index) => data.members[index].id), (row, column) => {
      if (row === column) return htmlNode("td", {}, "·");
      const share = shares.get(`${own[row]} ${own[column]}`) ?? 0;
      return shaded((100 * share).toFixed(0), 0.75 * share / top, percent(share));
    });
  }

  function doubted(point) {
    const top = Math.max(...point.doubted.map((d) => d[1]), 1e-9);
    const bars = point.doubted.map(([index, share]) => bar(className(index), percent(share), share / top));
    $("doubted").replaceChildren(...(bars.length ? bars : [htmlNode("li", { class: "dim" }, "The members always agree.")]));
  }

  // samples

  function draw(drawing, text) {
    if (typeof drawing === "string") return [htmlNode("img", { src: drawing, alt: text, loading: "lazy" })];
    if (drawing.values) {
      const cells = drawing.values.flatMap(([name, value]) => [htmlNode("dt", {}, name), htmlNode("dd", {}, value)]);
      return [htmlNode("dl", { "aria-label": text }, ...cells)];
    }
    const svg = svgNode("svg", { viewBox: `0 0 ${drawing.box.join(" ")}`, preserveAspectRatio: "none", role: "img", "aria-label": text });
    svg.append(...drawing.lines.map((line) => svgNode("path", { d: line })));
    return [svg, htmlNode("div", { class: "dim" }, drawing.note)];
  }

  function samples(list, chosen, votes) {
    const items = chosen.map((sample) => {
      const item = htmlNode("li");
      const truth = className(sample.truth), answer = className(sample.answer);
      const verb = data.masks ? "" : hasClasses ? "classified as " : "predicted ";
      const text = `sample ${sample.row}: ${truth}, ${verb}${answer}`;
      if (sample.drawing !== null) item.append(...draw(data.drawings[sample.drawing], text));
      const right = sample.truth === sample.answer;
      item.append(htmlNode("div", { class: "truth" }, truth), htmlNode("div", { class: right ? "good" : "answer" }, right ? "correct" : verb + answer));
      item.append(htmlNode("div", { class: "dim" }, votes ? sample.votes.map(([index, count]) => `${count}×\u00a0${className(index)}`).join(", ") : hasClasses ? `true class ${percent(sample.p)}` : `${data.loss} ${figure(sample.p)}`));
      return item;
    });
    list.replaceChildren(...(items.length ? items : [htmlNode("li", { class: "dim" }, "None.")]));
  }

  // the page

  function show() {
    const point = data.points[$("budget").value];
    const split = `test_${data.score}` in point.figures ? "test" : "valid";
    const size = point.members.length === 1 ? "1 member" : `${point.members.length} members`;
    const text = `${cost(point.cost)}: ${size}, ${split} ${data.metric} ${score(point.figures[`${split}_${data.score}`])}`;
    $("budget-text").textContent = text;
    $("budget").setAttribute("aria-valuetext", text);
    mark(point);
    figures(point);
    members(point);
    pairs(point);
    samples($("hardest"), point.hardest, false);
    if (!hasClasses) return;
    updateChoices(point);
    showDetails();
    doubted(point);
    samples($("disputed"), point.disputed, true);
  }

  let width = 0;
  new ResizeObserver(() => {
    if (width === document.documentElement.clientWidth) return;
    width = document.documentElement.clientWidth;
    chart();
    mark(data.points[$("budget").value]);
    if (hasClasses) showDetails();
  }).observe(document.documentElement);

  chart();
  $("budget").addEventListener("input", show);
  if (hasClasses) $("predictor").addEventListener("change", showDetails);
  show();
})();
