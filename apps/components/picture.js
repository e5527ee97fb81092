// Shows one picture; a click, a drawn box or a chip goes back to Python in pixels of the original picture.
// All words arrive as data and are set as text, never as HTML.
export default function ({ data, parentElement, setTriggerValue }) {
  const find = (name) => parentElement.querySelector("." + name);
  const { width, height } = data;
  const stage = find("stage"), across = find("across"), down = find("down"), place = find("place");
  const pick = (value) => data.still || setTriggerValue("pick", value);
  const percent = (part, whole) => `${(100 * part) / whole}%`;
  const within = (value, top) => Math.min(Math.max(value, 0), top);

  const add = (parent, tag, name, text = "") => {
    const node = parent.appendChild(document.createElement(tag));
    node.className = name;
    node.textContent = text;
    return node;
  };
  const lay = (node, [x1, y1, x2, y2]) => {
    Object.assign(node.style, {
      left: percent(x1, width), top: percent(y1, height), width: percent(x2 - x1, width), height: percent(y2 - y1, height),
    });
    return node;
  };
  const show = (image, source) => {
    image.classList.toggle("hidden", !source);
    if (source && image.src !== source) image.src = source;
  };

  show(find("base"), data.image);
  show(find("layer"), data.layer);
  find("base").alt = data.alt;
  stage.classList.toggle("coarse", data.coarse);
  stage.classList.toggle("draws", data.draws);
  stage.classList.toggle("still", data.still);
  stage.setAttribute("aria-label", data.help);
  place.classList.toggle("hidden", data.bar !== null);

  const marks = find("marks");
  marks.replaceChildren();
  const boxes = data.boxes.map((box) => {
    const node = lay(add(marks, "div", "box"), box.xyxy);
    node.style.setProperty("--colour", box.colour);
    node.style.setProperty("--ink", box.ink);
    node.classList.toggle("chosen", box.chosen);
    node.classList.toggle("low", box.xyxy[1] < 0.08 * height);
    node.classList.toggle("right", box.xyxy[0] > 0.7 * width && box.xyxy[2] > 0.85 * width);
    if (box.label) add(node, "span", "", box.label);
    return { ...box, node };
  });
  if (data.point) {
    const node = add(marks, "div", "point");
    node.style.left = percent(data.point[0] + 0.5, width);
    node.style.top = percent(data.point[1] + 0.5, height);
  }

  const bar = find("bar");
  bar.classList.toggle("hidden", data.bar === null);
  if (data.bar) {
    find("least").textContent = data.bar.low;
    find("most").textContent = data.bar.high;
    find("scale").style.background = `linear-gradient(to right, ${data.bar.colours.join(",")})`;
  }

  const chips = find("chips");
  chips.replaceChildren();
  for (const chip of data.chips) {
    const node = add(chips, data.still ? "span" : "button", "chip");
    if (!data.still) node.type = "button";
    node.style.setProperty("--colour", chip.colour);
    if (!data.still) node.setAttribute("aria-pressed", String(chip.chosen));
    add(node, "i", "");
    add(node, "span", "", chip.label);
    node.onclick = () => pick({ target: chip.target });
  }

  // the place under the pointer or, with the arrow keys, of the crosshair; where a drag began stays with the picture,
  // since the page may draw it anew in the middle
  let here = null, drawn = null;
  const at = (event) => {
    const frame = stage.getBoundingClientRect();
    return [within(((event.clientX - frame.left) / frame.width) * width, width),
            within(((event.clientY - frame.top) / frame.height) * height, height)];
  };
  const pixel = ([x, y]) => ({ x: within(Math.floor(x), width - 1), y: within(Math.floor(y), height - 1) });
  const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  const aim = (spot) => {
    here = spot;
    across.style.display = down.style.display = spot ? "block" : "none";
    const under = !spot ? [] : boxes.filter(
      ({ xyxy: [x1, y1, x2, y2] }) => x1 <= spot[0] && spot[0] <= x2 && y1 <= spot[1] && spot[1] <= y2);
    const near = under.length ? under.reduce((a, b) => (area(b.xyxy) < area(a.xyxy) ? b : a)) : null;
    for (const box of boxes) box.node.classList.toggle("near", box === near);
    if (!spot) return (place.textContent = data.hint);
    across.style.top = percent(spot[1], height);
    down.style.left = percent(spot[0], width);
    const { x, y } = pixel(spot);
    place.textContent = `x ${x}, y ${y}` + (near ? ` · ${near.name}` : "");
  };
  const corners = () => [Math.min(stage.start[0], here[0]), Math.min(stage.start[1], here[1]),
                          Math.max(stage.start[0], here[0]), Math.max(stage.start[1], here[1])];
  const far = () => {
    const frame = stage.getBoundingClientRect();
    return Math.hypot(((here[0] - stage.start[0]) / width) * frame.width, ((here[1] - stage.start[1]) / height) * frame.height) > 8;
  };
  const forget = () => {
    drawn?.remove();
    stage.start = drawn = null;
  };

  aim(null);
  stage.onpointerdown = (event) => {
    if (event.button !== 0) return;
    stage.setPointerCapture(event.pointerId);
    aim(at(event));
    stage.start = here;
  };
  stage.onpointermove = (event) => {
    aim(at(event));
    if (stage.start && data.draws && far()) lay((drawn ??= add(marks, "div", "drawn")), corners());
  };
  stage.onpointerup = (event) => {
    if (!stage.start) return;
    aim(at(event));
    const box = data.draws && far() && corners().map((value) => Math.round(10 * value) / 10);
    const spot = here;
    forget();
    pick(box ? { box } : pixel(spot));
  };
  stage.onpointercancel = forget;
  stage.onpointerleave = () => stage.start || aim(null);
  stage.onblur = () => aim(null);
  stage.onkeydown = (event) => {
    const step = event.shiftKey ? 10 : 1;
    const move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
    if (move) {
      const [x, y] = here ?? data.point ?? [width / 2, height / 2];
      aim([within(Math.floor(x) + 0.5 + move[0], width - 0.5), within(Math.floor(y) + 0.5 + move[1], height - 0.5)]);
    } else if (event.key === "Enter" || event.key === " ") {
      if (here) pick(pixel(here));
    } else if (event.key === "Escape") {
      forget();
      aim(null);
    } else return;
    event.preventDefault();
  };
}
