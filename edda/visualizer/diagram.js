// Makes the nodes of diagrams on a page act like buttons: a click, Enter or Space tells the page which one it was by the
// event `edda:node`, with `detail.node` (its id), `detail.calls` (ids of its calls in history) and `detail.label`.
// It listens to the document, so diagrams that are put into the page later need nothing.

function chosen(event) {
  return event.target instanceof Element ? event.target.closest(".edda-diagram [data-node]") : null;
}

function tell(node) {
  const detail = {
    node: node.dataset.node,
    calls: (node.dataset.calls ?? "").split(" ").filter(Boolean),
    label: node.getAttribute("aria-label"),
  };
  node.dispatchEvent(new CustomEvent("edda:node", { bubbles: true, detail }));
}

document.addEventListener("click", (event) => {
  const node = chosen(event);
  if (node) tell(node);
});

document.addEventListener("keydown", (event) => {
  const node = chosen(event);
  if (node && (event.key === "Enter" || event.key === " ")) {
    event.preventDefault();
    tell(node);
  }
});
