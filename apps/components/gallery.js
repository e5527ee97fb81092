// Shows many small pictures; a click, or Enter, on one goes back to Python as its number.  With a modifier key the link opens
// a tab of its own, as links do.  All words arrive as data and are set as text, never as HTML.
export default function ({ data, parentElement, setTriggerValue }) {
  const gallery = parentElement.querySelector(".gallery");
  const add = (parent, tag, name, text = "") => {
    const node = parent.appendChild(document.createElement(tag));
    node.className = name;
    node.textContent = text;
    return node;
  };
  gallery.replaceChildren();
  for (const tile of data.tiles) {
    const link = add(gallery, "a", "tile");
    link.href = tile.href;
    const pair = add(link, "span", "pair");
    for (const picture of tile.pictures) {
      const image = add(pair, "img", data.coarse ? "coarse" : "");
      image.src = picture.source;
      image.alt = picture.alt;
      image.draggable = false;
    }
    add(link, "span", "name", tile.name);
    if (tile.line) add(link, "span", "line", tile.line);
    if (tile.wrong) add(link, "span", "wrong", tile.wrong);
    link.onclick = (event) => {
      if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
      event.preventDefault();
      setTriggerValue("open", tile.number);
    };
  }
}
