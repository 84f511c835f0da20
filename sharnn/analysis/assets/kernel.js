// Connection to a kernel: requests to trace another text or to remove positions, and the responses.
// Both are messages exchanged with the page around this frame.

function connectKernel(explorer) {
  if (window.parent === window) return;
  const send = (request) => window.parent.postMessage({ sharnn: "request", ...request }, "*");
  const showStatus = (text) => {
    $("live-status").textContent = text;
  };

  window.addEventListener("message", async ({ source, data }) => {
    if (source !== window.parent || data?.sharnn !== "response") return;
    if (data.type === "hello") {
      $("live").hidden = $("ask").hidden = false;
      $("live-memory").value = data.memory_limit;
      $("live-memory").max = data.maximum;
    } else if (data.type === "trace") {
      await explorer.show(data.payload);
      showStatus(data.text);
    } else if (data.type === "ablation") {
      // Another target may have been selected since the request.
      const { chosen, head } = explorer;
      if (data.target === chosen && data.block === head?.block) $("answer").textContent = data.text;
    } else if (data.type === "error") {
      $(data.request === "ablate" ? "answer" : "live-status").textContent = data.text;
    }
  });

  $("live").addEventListener("submit", (event) => {
    event.preventDefault();
    showStatus("Running the model ...");
    send({
      type: "trace",
      text: $("live-text").value,
      memory_limit: Number($("live-memory").value),
    });
  });
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!explorer.head) return;
    $("answer").textContent = "...";
    const range = event.submitter?.name === "range";
    send({
      type: "ablate",
      block: explorer.head.block,
      target: explorer.chosen,
      count: range ? null : Number($("ask-count").value),
      nearest: range ? Number($("ask-near").value) : null,
      farthest: range ? Number($("ask-far").value) : null,
    });
  });
  send({ type: "hello" });
}
